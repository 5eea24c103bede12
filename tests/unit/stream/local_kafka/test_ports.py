"""A reserved port is reserved once, and a server can listen on it."""

from __future__ import annotations

import socket
import subprocess
import sys

from stream.local_kafka.ports import HOST, free_port, is_free

LISTEN = """
import socket, sys
with socket.socket() as server:
    if sys.argv[2] == "as servers do":
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((sys.argv[1], int(sys.argv[3])))
    server.listen()
"""


def _another_process(how: str, port: int) -> bool:
    done = subprocess.run([sys.executable, "-I", "-c", LISTEN, HOST, how, str(port)], capture_output=True, check=False)
    return done.returncode == 0


def test_a_given_port_is_for_a_server_and_for_nobody_who_looks_for_one() -> None:
    port = free_port()
    assert is_free(port)
    assert not _another_process("as who looks for one does", port)
    assert _another_process("as servers do", port)


def test_a_port_that_somebody_listens_on_is_not_free() -> None:
    with socket.create_server((HOST, 0)) as server:
        assert not is_free(server.getsockname()[1])
