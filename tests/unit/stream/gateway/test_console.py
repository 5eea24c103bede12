"""The console's files: what they hold by themselves. How they look and work is tested in a browser, in tests/browser."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from stream.gateway.console import FILES, add_console


@pytest.mark.skipif(shutil.which("node") is None, reason="no node here")
def test_modules_that_draw_nothing(tmp_path: Path) -> None:
    """By node, in a copy that says that these are modules."""
    for path in [*FILES.glob("*.js"), Path(__file__).with_name("console_test.mjs")]:
        shutil.copy(path, tmp_path)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    done = subprocess.run(
        ["node", "--test", "console_test.mjs"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert re.search(r"^# pass [1-9]\d*$", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("path", ["/", "/console/", "/console/main.js", "/console/page.css", "/console/icon.svg"])
def test_its_policy_allows_its_own_files_alone(path: str) -> None:
    app = FastAPI()
    add_console(app)
    headers = asyncio.run(_headers(app, path))
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy.pop("default-src") == "'none'"
    assert set(policy.values()) == {"'self'", "'none'"}
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert headers["cache-control"] == "no-cache"
    assert headers["etag"]


async def _headers(app: FastAPI, path: str) -> dict[str, str]:
    """The headers of a file that is served."""
    sent: list[Any] = []

    requests = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Any:
        await asyncio.sleep(0)
        return requests.pop() if requests else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(
        {"type": "http", "method": "GET", "path": path, "root_path": "", "headers": [], "query_string": b""},
        receive,
        send,
    )
    assert sent[0]["status"] == 200
    return {name.decode(): value.decode() for name, value in sent[0]["headers"]}


def test_every_module_is_used_and_every_import_is_there() -> None:
    imported = {"main.js"}
    for path in FILES.glob("*.js"):
        names = re.findall(r'from "\./([a-z_]+\.js)"', path.read_text())
        assert all((FILES / name).is_file() for name in names), path.name
        imported |= set(names)
    assert imported == {path.name for path in FILES.glob("*.js")}


def test_nothing_is_asked_of_another_host() -> None:
    """Addresses may name a standard, as that of SVG; none is one to load from."""
    for path in FILES.iterdir():
        found = set(re.findall(r"https?://[^\s\"'`)]+", path.read_text()))
        assert found <= {"http://www.w3.org/2000/svg"}, path.name


def test_both_dark_themes_are_the_same() -> None:
    """CSS cannot say it once: a media query and an attribute share no rule."""
    text = (FILES / "tokens.css").read_text()
    by_system = re.search(r'data-theme="system"\] \{(.*?)\}', text, re.DOTALL)
    by_choice = re.search(r'^:root\[data-theme="dark"\] \{(.*?)\}', text, re.DOTALL | re.MULTILINE)
    assert by_system
    assert by_choice
    assert by_system[1].split() == by_choice[1].split()
