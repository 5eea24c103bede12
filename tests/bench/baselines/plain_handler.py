"""The least that answers a list over HTTP: a Starlette handler on uvicorn that returns the same bytes each time.

python -m tests.bench.baselines.plain_handler PORT FILE
"""

from __future__ import annotations

import sys
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


def app_of(body: bytes) -> Starlette:
    """An app that answers every path with ``body``."""

    async def answer(_: Request) -> Response:
        return Response(body, media_type="application/json")

    return Starlette(routes=[Route("/{path:path}", answer)])


if __name__ == "__main__":
    app = app_of(Path(sys.argv[2]).read_bytes())
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=False, log_config=None, lifespan="off")
