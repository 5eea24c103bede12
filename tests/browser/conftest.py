"""A whole system for a browser: a broker, a worker with a model that has learned something, a gateway; and Debian's Chromium."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from stream.bundles.announcements import announce
from stream.local_kafka.broker import Broker
from stream.local_kafka.ports import free_port
from stream.ops.scrape import is_ready
from tests.browser import cinema
from tests.rigs.rig import ANSWERS_WITHIN_S, Rig, Worker
from tests.rigs.serving_rig import start_serving, until, wait_ready

if TYPE_CHECKING:
    from playwright import sync_api

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
#: Where screenshots are kept, to be looked at.
SCREENSHOTS = Path(__file__).resolve().parents[2] / ".intentrec" / "console"
#: Nothing here takes longer than some seconds; a busy machine may take many times as long.
ANSWER_MS = 90_000


@dataclass
class Cinema:
    """The system, with the gateway at ``url``. ``bundles``: the one that is announced first, and one for later."""

    rig: Rig
    bundles: tuple[str, str]
    worker: Worker
    gateway: Worker
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def kill_gateway(self) -> None:
        """Ends it as a crash does."""
        self.gateway.process.kill()
        self.gateway.process.wait()

    def start_gateway(self) -> None:
        """Starts one at the same address; it may not be ready yet."""
        scrape = f"http://127.0.0.1:{self.worker.metrics_port}"
        self.gateway = self.rig.start_worker(
            module="stream.cli", arguments=["gateway", "--port", str(self.port)], INTENTREC_GATEWAY_SCRAPE=scrape
        )

    def announce(self, version: str) -> None:
        """Announces a bundle. A thread of its own: a page's driver has an event loop in this one."""

        def run() -> None:
            asyncio.run(announce(self.rig.settings, bundle=version, url=self.rig.settings.bundle_url))

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()


def require_chromium(found: str | None, *, is_needed: bool) -> str:
    """Where Chromium is: a package of the system, which no Python package brings.

    Without it `make test` skips these tests and says so, as those that need Java; `make e2e` has no others, and fails.
    """
    if found is None:
        (pytest.fail if is_needed else pytest.skip)("no chromium here: apt-get install chromium")
    return found


@pytest.fixture(scope="session")
def chromium() -> str:
    """Where it is; without it, nothing is started. `make e2e` and `make console-picture` set the variable."""
    return require_chromium(CHROMIUM, is_needed=bool(os.environ.get("NEEDS_CHROMIUM")))


@pytest.fixture(scope="session")
def cinema_system(chromium: str, embedded_broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cinema]:
    folder = tmp_path_factory.mktemp("cinema")
    domain = folder / "cinema.toml"
    domain.write_text(cinema.DOMAIN)
    places = {"domain": str(domain), "bundle_url": str(folder / "store"), "cache_dir": folder / "cache"}
    rows = folder / "rows.toml"
    rows.write_text(cinema.ROWS)
    rig = Rig(embedded_broker, folder, places | {"device": "cpu", "rows": str(rows), "publish_reasons": True})
    try:
        bundles = tuple(cinema.train_bundle(rig.settings, folder / f"built-{seed}", seed) for seed in (1, 2))
        asyncio.run(announce(rig.settings, bundle=bundles[0], url=rig.settings.bundle_url))
        worker = start_serving(rig)
        wait_ready(worker)
        system = Cinema(rig, (bundles[0], bundles[1]), worker, worker, free_port())
        system.start_gateway()
        until(lambda: is_ready(system.gateway.metrics_port), ANSWERS_WITHIN_S, system.gateway)
        yield system
    finally:
        rig.stop()


@pytest.fixture(scope="module")
def browser(chromium: str, cinema_system: Cinema) -> Iterator[sync_api.Browser]:
    """Started last, and ended with its module: while its driver runs, no test of this process can run an event loop."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


PageMaker = Callable[..., "sync_api.Page"]


@pytest.fixture
def open_page(browser: sync_api.Browser, cinema_system: Cinema) -> Iterator[PageMaker]:
    """Opens a page in a browser of its own. The test fails where a page has an error, breaks its policy or asks another host."""
    contexts: list[sync_api.BrowserContext] = []
    wrong: list[str] = []

    def open_page(hash_: str = "", *, url: str = cinema_system.url, **options: object) -> sync_api.Page:
        context = browser.new_context(**{"viewport": {"width": 1360, "height": 900}} | options)
        context.set_default_timeout(ANSWER_MS)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on("request", lambda request: request.url.startswith(url) or wrong.append(request.url))
        # A request that fails is a line of the console too: an unknown member is 404, and a killed gateway refuses.
        page.on("console", lambda message: _is_wrong(message) and wrong.append(message.text))
        page.goto(f"{url}/{hash_}")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong


def _is_wrong(message: sync_api.ConsoleMessage) -> bool:
    return message.type == "error" and "Failed to load resource" not in message.text
