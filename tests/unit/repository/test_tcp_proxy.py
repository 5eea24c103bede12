"""The fault proxy itself: it delays what it should, and loses nothing."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from stream.local_kafka.ports import HOST
from tests.rigs.tcp_proxy import TcpProxy

Ends = tuple[TcpProxy, socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """A proxy, a client that is connected through it, and the server's side of that connection."""
    with (
        socket.create_server((HOST, 0)) as server,
        TcpProxy(server.getsockname()[1]) as proxy,
        socket.create_connection((HOST, proxy.port)) as client,
        server.accept()[0] as accepted,
    ):
        client.settimeout(10)
        accepted.settimeout(10)
        yield proxy, client, accepted


def test_both_directions_pass(ends: Ends) -> None:
    _, client, server = ends
    client.sendall(b"ask")
    assert server.recv(10) == b"ask"
    server.sendall(b"answer")
    assert client.recv(10) == b"answer"


def test_a_cut_is_silence_and_what_was_sent_arrives_in_order_when_it_is_healed(ends: Ends) -> None:
    proxy, client, server = ends
    proxy.cut()
    client.sendall(b"one ")
    server.sendall(b"two")
    for side in (client, server):
        side.settimeout(0.3)
        with pytest.raises(TimeoutError):
            side.recv(10)
        side.settimeout(10)
    client.sendall(b"three")
    proxy.heal()
    assert client.recv(10) == b"two"
    assert server.recv(4) + server.recv(10) == b"one three"


def test_a_sender_that_gave_up_is_heard_after_healing_and_then_its_end(ends: Ends) -> None:
    proxy, client, server = ends
    proxy.cut()
    client.sendall(b"late")
    client.shutdown(socket.SHUT_WR)
    proxy.heal()
    assert server.recv(10) == b"late"
    assert server.recv(10) == b""
