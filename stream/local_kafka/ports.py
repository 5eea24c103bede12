"""Finds free TCP ports on loopback for local brokers and child processes."""

from __future__ import annotations

import atexit
import random
import socket

from intentrec_core.errors import BrokerError

HOST = "127.0.0.1"
#: Below the range for outgoing connections. A port in that range can be lost while its server restarts: to any client, or to
#: the client that keeps retrying that port, which on loopback eventually connects to itself.
_LOWEST, _HIGHEST = 20_000, 32_767
_NUM_TRIES = 200

_HELD: list[socket.socket] = []


@atexit.register
def _let_go() -> None:
    """What is still open when the interpreter ends is warned of, once for each."""
    for held in _HELD:
        held.close()


def free_port() -> int:
    """A free TCP port on loopback, reserved for as long as this process lives.

    The port stays bound here, without listening. A server can still listen on it, because servers set SO_REUSEADDR, but another
    process that looks for a free port skips it. Otherwise a port could be given away twice before a child listens on it.

    Raises: BrokerError when no free port is found.
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
    """Whether no process listens on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def taken(port: int) -> str:
    """The error message for a port that is in use."""
    return f"port {port} on {HOST} is taken; choose another port, or 0 for any free port"
