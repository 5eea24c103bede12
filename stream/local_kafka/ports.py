"""Ports on loopback for what is started here."""

from __future__ import annotations

import atexit
import random
import socket

from intentrec_core.errors import BrokerError

HOST = "127.0.0.1"
#: Below what kernels give to outgoing connections. A port of those can be taken while its server restarts: by any client,
#: or by the one that keeps trying it, which on loopback sooner or later connects to itself.
_LOWEST, _HIGHEST = 20_000, 32_767
_NUM_TRIES = 200

_HELD: list[socket.socket] = []


@atexit.register
def _let_go() -> None:
    """What is still open when the interpreter ends is warned of, once for each."""
    for held in _HELD:
        held.close()


def free_port() -> int:
    """A TCP port on loopback that nobody has, and that nobody else is given while this process lives.

    It stays bound here, without listening: a server (they all set SO_REUSEADDR) can listen on it all the same, while another
    process that looks for a free one passes it over. What a child listens on seconds later would else be given away twice.

    Raises: BrokerError when none was found.
    """
    choose = random.SystemRandom()
    for _ in range(_NUM_TRIES):
        held = socket.socket()
        try:
            held.bind((HOST, port := choose.randint(_LOWEST, _HIGHEST)))
        except OSError:
            held.close()
            continue
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _HELD.append(held)
        return port
    raise BrokerError(f"no free port on {HOST} between {_LOWEST} and {_HIGHEST}")


def is_free(port: int) -> bool:
    """Whether nobody listens on it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def taken(port: int) -> str:
    """What to say of a port that is not free."""
    return f"port {port} on {HOST} is taken; choose another, or 0 for any free one"
