"""What holds for every request of an app, whatever its path: failures, foreign pages, headers, and what is counted."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI

from stream.gateway.access import Caller
from stream.gateway.app import create_app
from stream.ops.metrics import Metrics
from stream.settings import Settings


def app_of(metrics: Metrics, *, needs_token: bool = False, caller: Caller | None = None, **settings: Any) -> FastAPI:
    """An app whose gateway has no other parts: whatever asks for one fails."""
    gateway: Any = SimpleNamespace(
        settings=Settings(**settings),
        metrics=metrics,
        access=SimpleNamespace(needs_token=needs_token, caller=lambda _: caller),
        count=lambda caller, request: None,
        ownership=SimpleNamespace(address="http://127.0.0.1:9470"),
    )
    return create_app(gateway)


def ask(app: FastAPI, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], Any]:
    """Status, headers and JSON of a request."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [
            (name.lower().encode(), value.encode()) for name, value in ({"Host": "127.0.0.1"} | headers).items()
        ],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 9470),
        "scheme": "http",
    }
    asyncio.run(app(scope, receive, send))
    start, *bodies = sent
    found = {name.decode(): value.decode() for name, value in start["headers"]}
    return start["status"], found, json.loads(b"".join(body["body"] for body in bodies))


def test_a_mistake_of_ours_is_a_problem_with_all_headers_and_counts_as_failed(caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics()
    status, headers, found = ask(
        app_of(metrics, gateway_cors="https://app.example.com"), "/v1/status", Origin="https://app.example.com"
    )
    assert (status, found["type"]) == (500, "urn:intentrec:problem:internal")
    assert headers["cache-control"] == "no-store"
    assert headers["access-control-allow-origin"] == "https://app.example.com"
    assert "content-security-policy" in headers
    failed = metrics.registry.get_sample_value(
        "intentrec_gateway_requests_total", {"path": "operators", "outcome": "failed"}
    )
    assert failed == 1
    assert "GET /v1/status failed" in caplog.text
    assert "AttributeError" in caplog.text


@pytest.mark.parametrize("needs_token", [False, True])
def test_pages_of_others_are_refused_where_there_is_no_key(needs_token: bool) -> None:
    status, _, found = ask(app_of(Metrics(), needs_token=needs_token), "/nowhere", Host="evil.example")
    assert (status, found["type"].rsplit(":", 1)[1]) == ((404, "not-found") if needs_token else (403, "foreign-page"))


@pytest.mark.parametrize(
    ("tag", "refusal", "num"), [("members", "other-member", 6), ("operators", "operators-only", 3)]
)
def test_no_path_answers_the_token_of_another_member(tag: str, refusal: str, num: int) -> None:
    """Of every path there is: one that is added is asked too. A stream is asked without a ticket."""
    app = app_of(Metrics(), needs_token=True, caller=Caller("other"))
    asked = [
        (path.replace("{user_id}", "u"), method.upper())
        for path, methods in app.openapi()["paths"].items()
        for method, described in methods.items()
        if tag in described["tags"]
    ]
    assert len(asked) >= num
    for path, method in asked:
        status, _, found = ask(app, path, method)
        assert (status, found["type"].rsplit(":", 1)[1]) == (403, refusal), path
