"""What a gateway without a key refuses: requests that a page of another site makes in a browser on this machine.

A browser reaches loopback for any page that it shows. Three checks keep those pages out: the name that was asked for is this
machine's (a foreign name can be pointed at 127.0.0.1, and its page could then read everything), a request that changes something
comes from no other origin, and its body is said to be JSON, which a foreign page cannot say without being allowed to.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from stream.gateway.access import is_loopback
from stream.gateway.problems import Problem, ProblemKind

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

_READING = ("GET", "HEAD", "OPTIONS")


class ForeignPages:
    """ASGI middleware that refuses them.

    ``origins``: of pages that may call (the setting gateway_cors); ``address``: the URL at which other gateways reach this one.
    """

    def __init__(self, app: ASGIApp, origins: Collection[str], address: str) -> None:
        self._app, self._origins = app, origins
        self._own_host = _name(urlsplit(address).netloc)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or refuses it."""
        if scope["type"] == "http":
            try:
                self._check(scope["method"], Headers(scope=scope))
            except Problem as problem:
                return await problem.response()(scope, receive, send)
        return await self._app(scope, receive, send)

    def _check(self, method: str, headers: Headers) -> None:
        """Raises: Problem (foreign_page, invalid_request)."""
        host = headers.get("Host", "")
        name = _name(host)
        if host and not is_loopback(name) and name != self._own_host:
            raise Problem(
                ProblemKind.FOREIGN_PAGE,
                f"host {host}: ask for 127.0.0.1 or localhost, or set gateway_key_file for a gateway with another name",
            )
        if method in _READING:
            return
        origin = headers.get("Origin")
        own = (f"http://{host}", f"https://{host}")
        if origin is not None and origin not in own and origin not in self._origins and "*" not in self._origins:
            raise Problem(
                ProblemKind.FOREIGN_PAGE, f"origin {origin}: add it to gateway_cors if its pages may send plays"
            )
        has_body = headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in headers
        media_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if has_body and media_type != "application/json":
            raise Problem(ProblemKind.INVALID_REQUEST, "send Content-Type: application/json")


def _name(host: str) -> str:
    """The name or address in a header ``Host``, without its port; empty if there is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
