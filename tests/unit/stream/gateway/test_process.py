"""The socket of a gateway and its address: what cannot be had, or be reached by other gateways, is one line."""

from __future__ import annotations

import contextlib
import logging
import resource
import socket

import pytest

from intentrec_core.errors import ConfigError
from stream.gateway.process import _check_address, _listen, _open_files
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


def limits(monkeypatch: pytest.MonkeyPatch, may_open: int, hard: int, *, is_fixed: bool = False) -> None:
    """Sets this process's limits of open files; ``is_fixed``: it may not raise its own."""
    now = [may_open, hard]

    def setrlimit(_: int, new: tuple[int, int]) -> None:
        if is_fixed:
            raise ValueError("current limit exceeds maximum limit")
        now[:] = new

    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(now))
    monkeypatch.setattr(resource, "setrlimit", setrlimit)


def warnings_of(caplog: pytest.LogCaptureFixture, num_streams: int) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        _open_files(num_streams)
    return caplog.messages


def test_files_for_streams_that_are_passed_on_are_counted_too(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A stream that is passed on is two files: that of its reader, and that of the other gateway."""
    limits(monkeypatch, 256, 3500)
    assert not warnings_of(caplog, 1000)
    (warning,) = warnings_of(caplog, 1001)
    assert "may open 3500 files" in warning
    assert "needs 3503" in warning


def test_a_system_that_does_not_take_its_own_limit_of_files_is_no_reason_to_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    limits(monkeypatch, 256, resource.RLIM_INFINITY, is_fixed=True)
    (warning,) = warnings_of(caplog, 1000)
    assert "may open 256 files" in warning
