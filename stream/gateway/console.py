"""The live console: one page and its files, which use the public HTTP API alone.

The files are in the folder ``console`` beside this module, as they are served: no build, and nothing of others.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

if TYPE_CHECKING:
    import os

    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.types import Scope

FILES = Path(__file__).with_name("console")
#: Stricter than the other pages: the console writes no style into its markup, and asks nobody but this gateway.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class _ConsoleFiles(StaticFiles):
    """The folder's files. A browser asks each time whether one has changed, so that a page never mixes two releases."""

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(_HEADERS)
        return response


def add_console(app: Starlette) -> None:
    """Serves the page at ``/`` and ``/console/``, and its files under ``/console/``."""

    async def page(_: Request) -> Response:
        return FileResponse(FILES / "index.html", headers=_HEADERS)

    app.add_route("/", page, methods=["GET", "HEAD"], include_in_schema=False)
    app.mount("/console", _ConsoleFiles(directory=FILES, html=True))
