"""The socket of a gateway and its address: what cannot be had, or be reached by other gateways, is one line."""

from __future__ import annotations

import contextlib
import socket

import pytest

from intentrec_core.errors import ConfigError
from stream.gateway.process import _check_address, _listen
from stream.settings import Settings


def test_asyncio_knows_that_a_connection_is_tcp_and_turns_nagles_algorithm_off() -> None:
    """asyncio turns it off for sockets that name their protocol; a connection has that of the socket it came from."""
    with contextlib.closing(_listen(Settings(gateway_port=0))) as listening:
        assert listening.proto == socket.IPPROTO_TCP


@pytest.mark.parametrize("host", ["127.0.0.1", "203.0.113.7"])
def test_an_address_that_cannot_be_had_is_one_line(host: str) -> None:
    with contextlib.closing(_listen(Settings(gateway_port=0))) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"cannot listen on {host}:{port} .*gateway_port") as raised:
            _listen(Settings(gateway_host=host, gateway_port=port))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_gateway_at_every_address_says_at_which_one_others_reach_it(host: str) -> None:
    with pytest.raises(ConfigError, match="set gateway_address to the URL"):
        _check_address(Settings(gateway_host=host))
    _check_address(Settings(gateway_host=host, gateway_address="http://gateway-1:9470"))
    _check_address(Settings(gateway_host="10.0.0.5"))
