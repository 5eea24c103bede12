"""A gateway without a key answers this machine, and no page of another site that a browser shows on it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.responses import Response

from stream.gateway.foreign_pages import ForeignPages

ALLOWED = "https://app.example.com"
JSON = {"Content-Type": "application/json", "Content-Length": "2"}


def status(method: str, headers: dict[str, str], *origins: str) -> int:
    """The status of a request to a gateway that would answer it with 204."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    app = ForeignPages(Response(status_code=204), origins, "http://gateway-1:9470")
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    asyncio.run(app({"type": "http", "method": method, "path": "/", "headers": raw}, None, send))  # type: ignore[arg-type]
    return int(sent[0]["status"])


@pytest.mark.parametrize(
    "host", ["127.0.0.1:9470", "127.0.0.1", "localhost:9470", "LOCALHOST", "[::1]:9470", "127.8.0.1", "gateway-1:9470"]
)
def test_the_names_of_this_machine_are_answered(host: str) -> None:
    assert status("GET", {"Host": host}) == 204
    assert status("POST", {"Host": host, "Origin": f"http://{host}"} | JSON) == 204


@pytest.mark.parametrize(
    "host", ["evil.example:9470", "127.0.0.1.evil.example", "localhost.evil.example", "[", "10.0.0.5", "@127.0.0.1:x@e"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_another_name_that_leads_here_is_refused(host: str, method: str) -> None:
    """As when a page's own name is pointed at loopback, so that it may read what it gets."""
    assert status(method, {"Host": host} | JSON) == 403


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:8000", "http://localhost:9470"])
def test_a_page_of_another_origin_sends_nothing(origin: str) -> None:
    headers = {"Host": "127.0.0.1:9470", "Origin": origin} | JSON
    assert status("POST", headers) == 403
    assert status("POST", headers, ALLOWED) == 403
    assert status("POST", headers, "*") == 204


def test_an_origin_of_the_setting_sends() -> None:
    assert status("POST", {"Host": "localhost:9470", "Origin": ALLOWED} | JSON, ALLOWED) == 204


@pytest.mark.parametrize(
    "media_type", ["", "text/plain", "application/x-www-form-urlencoded", "text/plain; application/json"]
)
def test_a_body_is_json(media_type: str) -> None:
    """A page may send the others to anybody, without being asked."""
    length = {"Host": "localhost", "Content-Length": "2"}
    assert status("POST", length | {"Content-Type": media_type}) == 400
    assert status("POST", {"Host": "localhost", "Transfer-Encoding": "chunked", "Content-Type": media_type}) == 400
    assert status("POST", length | {"Content-Type": "application/json; charset=utf-8"}) == 204
    assert status("POST", {"Host": "localhost", "Content-Length": "0"}) == 204, "no body, as for a ticket"
