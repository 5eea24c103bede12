"""The JavaScript of the gateway's document, copied out of it and run in Chromium: tickets, another origin, and coming back."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from joserfc import jwt
from joserfc.jwk import OctKey

from stream.local_kafka.broker import Broker
from tests.rigs.broker_fixtures import RigMaker
from tests.rigs.gateway_rig import messages, running, until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_PAGE = """<!doctype html><script type="module">
import {{ follow }} from "/follow.mjs";
follow({gateway}, "a/ü", {token}, (kind, message) =>
  fetch("/seen", {{ method: "POST", body: JSON.stringify([kind, message.event_id]) }}));
</script>"""


def documented_client() -> str:
    """The JavaScript of the document."""
    text = (Path(__file__).resolve().parents[2] / "docs/gateway.md").read_text("utf-8")
    (found,) = re.findall(r"```js\n(.*?)```", text, re.S)
    return found


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
@pytest.mark.timeout(180)
def test_the_documented_client_follows_a_member_and_comes_back(
    embedded_broker: Broker, make_rig: RigMaker, tmp_path: Path
) -> None:
    rig, key = make_rig(embedded_broker), tmp_path / "key"
    key.write_text("s" * 40)
    claims = {"sub": "a/ü", "exp": int(time.time()) + 600}
    token = jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(key.read_bytes()))
    seen: list[Any] = []

    async def body() -> None:
        async with Page(seen) as page:
            options: dict[str, Any] = {"gateway_key_file": key, "gateway_cors": page.origin}
            async with messages(rig.settings) as written, running(rig.settings, **options) as gateway:
                page.html = _PAGE.format(gateway=json.dumps(gateway.url), token=json.dumps(token))
                await written.answer("a/ü")
                browser = await asyncio.create_subprocess_exec(
                    str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
                    page.origin, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
                )  # fmt: skip
                try:
                    await until(lambda: _both("e0") <= _told(seen), within_s=90)
                    await written.answer("a/ü")
                    await until(lambda: _both("e1") <= _told(seen))
                    gateway.end_streams()
                    await written.answer("a/ü")
                    await until(lambda: _both("e2") <= _told(seen))
                finally:
                    browser.kill()
                    await browser.wait()

    asyncio.run(body())
    assert len(seen) == len(_told(seen)), "after coming back nothing is sent again"


def _both(event_id: str) -> set[tuple[str, str]]:
    return {("intents", event_id), ("recommendations", event_id)}


def _told(seen: list[Any]) -> set[tuple[str, str]]:
    return {(kind, event_id) for kind, event_id in seen}


class Page:
    """A page of another origin, with the client as it is documented, that tells what it saw."""

    def __init__(self, seen: list[Any]) -> None:
        self._seen = seen
        self.html = self.origin = ""

    async def __aenter__(self) -> Page:
        app = web.Application()
        app.router.add_get("/", self._page)
        app.router.add_get("/follow.mjs", self._client)
        app.router.add_post("/seen", self._saw)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.origin = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _page(self, _: web.Request) -> web.Response:
        return web.Response(text=self.html, content_type="text/html")

    async def _client(self, _: web.Request) -> web.Response:
        return web.Response(text=documented_client(), content_type="text/javascript")

    async def _saw(self, request: web.Request) -> web.Response:
        self._seen.append(json.loads(await request.text()))
        return web.Response(text="")
