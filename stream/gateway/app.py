"""The ASGI app of a gateway: its paths, its page, and what holds for all of them."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles

from stream.gateway import item_paths, member_paths, operator_paths, play_paths, rank_paths
from stream.gateway.console import add_console
from stream.gateway.counted_requests import CountedRequests
from stream.gateway.failed_requests import FailedRequests
from stream.gateway.foreign_pages import ForeignPages
from stream.gateway.openapi import openapi
from stream.gateway.problems import Problem, ProblemKind
from stream.gateway.safe_responses import SafeResponses

if TYPE_CHECKING:
    from stream.gateway.gateway import Gateway

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>IntentRec gateway</title>
<link rel="icon" href="data:,"><link rel="stylesheet" href="/docs/assets/swagger-ui.css"></head>
<body><div id="page"></div><script src="/docs/assets/swagger-ui-bundle.js"></script>
<script src="/docs/page.js"></script></body></html>
"""
#: No validator: it is a service of others.
_SCRIPT = 'SwaggerUIBundle({url: "/v1/openapi.json", dom_id: "#page", validatorUrl: null});\n'
_ROUTERS = (member_paths.router, rank_paths.router, play_paths.router, item_paths.router, operator_paths.router)


def create_app(gateway: Gateway) -> FastAPI:
    """The app that answers for a gateway."""
    app = make_app()
    app.state.gateway = gateway
    app.add_middleware(FailedRequests)  # the first one is the innermost: what follows holds for failures too
    origins = [origin for origin in gateway.settings.gateway_cors.split(",") if origin]
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "Last-Event-ID"],
            expose_headers=["Retry-After"],
            max_age=600,
        )
    if not gateway.access.needs_token:
        app.add_middleware(ForeignPages, origins=origins, address=gateway.ownership.address)
    app.add_middleware(SafeResponses)
    app.add_middleware(CountedRequests, metrics=gateway.metrics)
    return app


def make_app() -> FastAPI:
    """The paths of every gateway, without one."""
    app = FastAPI(openapi_url="/v1/openapi.json", docs_url=None, redoc_url=None, redirect_slashes=False)
    app.openapi = lambda: _contract(app)  # type: ignore[method-assign]
    for router in _ROUTERS:
        app.include_router(router)
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    _add_page(app)
    add_console(app)
    return app


def _contract(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        app.openapi_schema = openapi(app)
    return app.openapi_schema


def _add_page(app: FastAPI) -> None:
    @app.get("/docs", include_in_schema=False)
    async def page() -> Response:
        return HTMLResponse(_PAGE)

    @app.get("/docs/page.js", include_in_schema=False)
    async def script() -> Response:
        return Response(_SCRIPT, media_type="text/javascript")

    # Out of the installed wheel: nothing comes from the network, and nothing of it is in this repository.
    app.mount("/docs/assets", StaticFiles(directory=str(files("fastapi_offline") / "static")))


async def _problem(_: Request, problem: Exception) -> Response:
    assert isinstance(problem, Problem)
    return problem.response()


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:]) or str(first["loc"][0])
    return Problem(ProblemKind.INVALID_REQUEST, f"{where}: {first['msg']}").response()


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return Problem(ProblemKind.NOT_FOUND, f"no {request.url.path}; the paths are at /docs").response()
    if error.status_code == 405:
        return Problem(ProblemKind.METHOD_NOT_ALLOWED, f"{request.method} {request.url.path}; see /docs").response(
            error.headers
        )
    return Problem(ProblemKind.INVALID_REQUEST, str(error.detail), status=error.status_code).response(error.headers)
