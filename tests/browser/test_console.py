"""The console in a real browser, on a real gateway, worker and broker."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey

from stream.local_kafka.ports import free_port
from stream.ops.scrape import is_ready
from tests.browser import cinema
from tests.browser.conftest import ANSWER_MS, SCREENSHOTS, Cinema, PageMaker
from tests.rigs.rig import ANSWERS_WITHIN_S
from tests.rigs.serving_rig import until

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page, Route

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

DURATION = re.compile(r"^(\d+ ms|[\d.]+ s)$")
#: What reaches beyond a phone's screen, outside of what scrolls by itself.
TOO_WIDE = """() => [...document.querySelectorAll("body *")]
  .filter((each) => each.getBoundingClientRect().right > 390.5 && !each.closest(".scroller, .tiles"))
  .map((each) => `${each.tagName}.${each.className} ${each.getBoundingClientRect().right}`).slice(0, 8)"""
#: Whether the left and the right list of two bundles are these.
SHOWN_LISTS = """lists => lists.every((titles, at) => {
  const shown = [...document.querySelectorAll(".ranked")[at].querySelectorAll(".name")].map((each) => each.textContent);
  return JSON.stringify(shown) === JSON.stringify(titles);
})"""
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True, "device_scale_factor": 2}


def tiles(page: Page) -> Locator:
    return page.locator("[data-testid=rows] .tile")


def picked(page: Page) -> Locator:
    return page.locator("[data-testid=picker] .tile")


def shown_titles(page: Page) -> list[str]:
    return page.locator("[data-testid=rows] .tile .name").all_inner_texts()


def probability(page: Page, label: str) -> float:
    return float(page.locator(f"tr[data-label='{label}']").get_attribute("data-probability"))


def answered(page: Page) -> Locator:
    """Plays that are answered and on the screen."""
    return page.locator("[data-testid=plays] > li", has_text="on screen after")


def choose_genre(page: Page, genre: str) -> None:
    chip = page.get_by_role("button", name=genre, exact=True)
    if chip.get_attribute("aria-pressed") != "true":
        chip.click()
    page.wait_for_function(
        "genre => [...document.querySelectorAll('[data-testid=picker] .about')].every((each) => each.textContent === genre)",
        arg=genre,
    )


def play(page: Page, genre: str, num: int) -> None:
    """Plays titles of a genre, each once the one before is answered."""
    choose_genre(page, genre)
    before = answered(page).count()
    for number in range(num):
        picked(page).nth(number).click()
        answered(page).nth(before + number).wait_for()


def test_titles_of_a_genre_raise_its_bar_and_reorder_the_screen(open_page: PageMaker) -> None:
    page = open_page()
    tiles(page).first.wait_for()
    play(page, "Comedy", 2)
    before, order = probability(page, "Horror"), shown_titles(page)
    rows = page.locator("[data-testid=rows] h2")
    assert rows.first.inner_text() == "In the mood for Comedy"
    play(page, "Horror", 3)
    assert probability(page, "Horror") > before + 0.1
    assert page.locator("tr[data-label='Horror']").evaluate("row => row === row.parentElement.firstElementChild")
    assert rows.first.inner_text() == "In the mood for Horror"
    assert shown_titles(page) != order
    assert sum("Cellar" in title for title in shown_titles(page)[:5]) > sum("Cellar" in title for title in order[:5])
    assert DURATION.match(page.get_by_test_id("latency").inner_text())
    assert DURATION.match(page.locator(".figures dd").first.inner_text())
    assert "New session" in page.locator("[data-testid=plays] > li").last.inner_text()
    assert "Horror ▲" in page.get_by_test_id("plays").inner_text()
    _keep(page, "member-desktop")
    page.screenshot(
        path=SCREENSHOTS / "picture.png", full_page=True, clip={"x": 0, "y": 0, "width": 1360, "height": 880}
    )


def test_two_members_in_two_browsers_see_nothing_of_each_other(open_page: PageMaker) -> None:
    asked: dict[str, list[str]] = {"ann": [], "bob": []}
    pages = {name: open_page("#/pipeline") for name in asked}
    for name, page in pages.items():
        page.on("request", lambda request, asked=asked[name]: asked.append(request.url))
        page.evaluate("name => { location.hash = `#/member/${name}`; }", name)
        page.get_by_label("Be this member").check()
        tiles(page).first.wait_for()
    play(pages["ann"], "Comedy", 2)
    play(pages["bob"], "Western", 2)
    play(pages["ann"], "Comedy", 1)
    texts = {name: page.locator("main").inner_text() for name, page in pages.items()}
    assert answered(pages["ann"]).count() == 3
    assert answered(pages["bob"]).count() == 2
    assert pages["ann"].locator("[data-testid=plays] > li").count() == 3
    assert pages["bob"].locator("[data-testid=plays] > li").count() == 2
    assert "bob" not in texts["ann"]
    assert "ann" not in texts["bob"]
    for name, urls in asked.items():
        members = {url.split("/v1/users/")[1].split("/")[0] for url in urls if "/v1/users/" in url}
        assert members == {name}


def test_the_page_goes_on_after_the_gateway_was_killed(cinema_system: Cinema, open_page: PageMaker) -> None:
    page = open_page()
    tiles(page).first.wait_for()
    play(page, "Drama", 1)
    cinema_system.kill_gateway()
    page.get_by_text("The gateway does not answer").wait_for()
    assert page.locator("#connection").inner_text() == "Reconnecting"
    picked(page).nth(5).click()
    waiting = page.locator("[data-testid=plays] > li", has_text="not sent yet")
    waiting.wait_for()
    title = waiting.locator("strong").inner_text()
    # It is the page's play, not the view's: a look at another view neither takes it away nor ends its sending.
    page.get_by_role("link", name="Pipeline").click()
    page.get_by_role("link", name="Member").click()
    waiting.wait_for()
    assert waiting.locator("strong").inner_text() == title
    page.get_by_role("link", name="Pipeline").click()
    with page.expect_response(
        lambda response: response.url.endswith("/v1/plays") and response.ok, timeout=ANSWERS_WITHIN_S * 1000
    ):
        cinema_system.start_gateway()
    page.get_by_role("link", name="Member").click()
    # The play was sent once there was a gateway, and the stream tells its answer.
    page.locator("#connection", has_text="Live").wait_for(timeout=ANSWERS_WITHIN_S * 1000)
    page.locator("[data-testid=plays] > li", has_text=title).wait_for(timeout=ANSWERS_WITHIN_S * 1000)
    assert page.locator("#notice").is_hidden()
    play(page, "Comedy", 1)


def test_the_time_to_the_screen_holds_the_drawing(open_page: PageMaker) -> None:
    page = open_page()
    tiles(page).first.wait_for()
    page.evaluate("() => { window.requestAnimationFrame = (draw) => setTimeout(() => draw(performance.now()), 2500); }")
    picked(page).first.click()
    answered(page).first.wait_for()
    shown = page.get_by_test_id("latency").inner_text()
    assert shown.endswith(" s"), shown
    assert float(shown.removesuffix(" s")) >= 2.5


def test_a_member_is_watched_without_playing(open_page: PageMaker) -> None:
    page = open_page("#/member/somebody")
    tiles(page).first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("Nearest titles").wait_for()
    dialog.locator("ol li .quiet").first.wait_for()
    dialog.get_by_role("button", name="Close").click()
    assert page.locator("[data-testid=plays] > li").count() == 0
    tiles(page).first.click()
    page.get_by_role("button", name="Play as somebody").click()
    answered(page).first.wait_for()


def test_a_second_bundle_is_compared_and_its_swap_is_marked(cinema_system: Cinema, open_page: PageMaker) -> None:
    first, second = cinema_system.bundles
    health = open_page("#/pipeline")
    health.locator(".kpis").wait_for()
    page = open_page("#/member/compared")
    page.get_by_label("Be this member").check()
    play(page, "Western", 2)
    cinema_system.announce(second)
    try:
        page.locator("#bundle", has_text=second[:9]).wait_for()
        play(page, "Western", 1)
        health.locator("text.mark", has_text=f"swap {second[:9]}").first.wait_for()
        health.locator("table tr", has_text=f"{second[:9]} (serving)").wait_for()
        health.locator(".chart-table summary").first.click()
        health.locator(".chart-table[open] tbody tr").first.wait_for()
        of_worker = health.locator("tr", has_text=f":{cinema_system.worker.metrics_port}").inner_text()
        assert re.search(r"\b(\d+) of \1 ready\b.*\b\d+ m?s a partition, [\d,]+ records?$", of_worker, re.DOTALL), (
            of_worker
        )
        _keep(health, "pipeline-desktop")
        page.get_by_role("link", name="Compare").click()
        # The bundle of before has not answered the newest play.
        page.get_by_text("in both lists. They answer different plays").wait_for()
        sides = page.locator(".compare select")
        assert [sides.nth(at).input_value() for at in (0, 1)] == [first, second]
        lists = [page.locator(".ranked").nth(at).locator(".name").all_inner_texts() for at in (0, 1)]
        assert lists[0]
        assert lists[0] != lists[1]
        page.locator("tbody tr", has_text=re.compile(r"[+−]\d+ points?")).first.wait_for()
        _keep(page, "compare-desktop")
        choose_while_a_load_runs(page, first, second)
        page.wait_for_function(SHOWN_LISTS, arg=[lists[1], lists[0]])
        heads = page.locator("thead th").all_text_contents()
        assert heads[1:3] == [second[:9], first[:9]]
        sides.nth(1).select_option(second)
        page.wait_for_function(SHOWN_LISTS, arg=[lists[1], lists[1]])
        assert "different plays" not in page.get_by_role("status").all_inner_texts()[-1]
    finally:
        cinema_system.announce(first)
        health.locator("#bundle", has_text=first[:9]).wait_for()


def choose_while_a_load_runs(page: Page, first: str, second: str) -> None:
    """Chooses a bundle on the left, and one on the right while the answers about the left one are held up."""
    held: list[Route] = []

    def hold(route: Route) -> None:
        if len(held) < 2:
            held.append(route)
        else:
            route.continue_()

    page.route("**/recommendations?bundle=*", hold)
    page.locator(".compare select").nth(0).select_option(second)
    while len(held) < 2:
        page.wait_for_timeout(20)
    page.locator(".compare select").nth(1).select_option(first)
    for route in held:
        route.continue_()


def test_a_token_is_asked_for_and_shows_its_member_alone(
    cinema_system: Cinema, open_page: PageMaker, tmp_path: Path
) -> None:
    key, port = tmp_path / "key", free_port()
    key.write_text("s" * 40)
    claims = {"sub": "zoë/1", "exp": int(time.time()) + 600}
    token = jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(key.read_bytes()))
    gateway = cinema_system.rig.start_worker(
        module="stream.cli",
        arguments=["gateway", "--port", str(port)],
        INTENTREC_APP_ID=f"{cinema_system.rig.settings.app_id}-keyed",
        INTENTREC_GATEWAY_KEY_FILE=str(key),
    )
    until(lambda: is_ready(gateway.metrics_port), ANSWERS_WITHIN_S, gateway)
    page = open_page(url=f"http://127.0.0.1:{port}")
    page.get_by_label("Token (JWT)").fill(token)
    page.get_by_role("button", name="Use it").click()
    page.wait_for_function("() => document.getElementById('member')?.value === 'zoë/1'")
    page.get_by_label("Be this member").check()
    play(page, "Drama", 1)
    page.get_by_role("link", name="Everyone").click()
    page.get_by_text("this path needs a token whose scope has").wait_for()
    page.get_by_role("link", name="Compare").click()
    page.get_by_text("needs an operator's token").first.wait_for()
    assert not page.get_by_text("No bundle is announced").count()
    gateway.terminate()


def test_everyone_is_shown_as_their_plays_come(cinema_system: Cinema, open_page: PageMaker) -> None:
    page = open_page("#/everyone", color_scheme="dark")
    rows = [row._asdict() for row in cinema._rows(num_members=12, num_each=6, seed=9)]
    cinema_system.rig.produce(
        {
            "event_id": row["event_id"] + "-live",
            "user_id": row["user_id"],
            "item_id": row["item_id"],
            "ts": row["ts_ms"],
        }
        for row in rows
    )
    for member in range(12):
        page.locator(f".card[href$='/learnt-{member}'] ol li").first.wait_for()
    page.get_by_text("different titles in").wait_for()
    page.get_by_text("All members: there is one gateway").wait_for()
    page.get_by_role("button", name="Pause").click()
    assert page.get_by_role("button", name="Go on").get_attribute("aria-pressed") == "true"
    _keep(page, "everyone-dark")
    page.locator(".card").first.click()
    page.get_by_test_id("intents").wait_for()


def test_keys_alone_find_and_play_a_title(open_page: PageMaker) -> None:
    page = open_page()
    picked(page).first.wait_for()
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    page.keyboard.type("lost trail")
    page.wait_for_function("() => document.querySelectorAll('[data-testid=picker] .tile').length === 1")
    for _ in range(10):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.classList.contains('tile')"):
            break
    page.keyboard.press("Enter")
    answered(page).first.wait_for()
    assert page.locator("[data-testid=plays] strong").inner_text() == "The Lost Trail"
    tiles(page).first.focus()
    second = tiles(page).nth(1).locator(".name").inner_text()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.querySelector('.name').textContent") == second


def test_who_wants_no_motion_gets_none(open_page: PageMaker) -> None:
    page = open_page(reduced_motion="reduce")
    tiles(page).first.wait_for()
    page.evaluate("() => { Element.prototype.animate = () => { throw new Error('it moves'); }; }")
    play(page, "Drama", 2)
    assert (
        page.locator(".bar .fill").first.evaluate("bar => parseFloat(getComputedStyle(bar).transitionDuration)") < 0.001
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", ["member", "everyone", "compare", "pipeline"])
def test_axe_finds_nothing_serious(open_page: PageMaker, view: str, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = open_page("#/member/axe", color_scheme=scheme)
    page.get_by_label("Be this member").check()
    tiles(page).first.wait_for()
    play(page, "Comedy", 2)
    if view != "member":
        page.get_by_role("link", name=view.capitalize()).click()
        page.locator({"everyone": ".card", "compare": ".ranked li", "pipeline": ".kpis"}[view]).first.wait_for()
    page.wait_for_function("() => document.getAnimations().length === 0")
    found = Axe().run(page).response["violations"]
    serious = [rule for rule in found if rule["impact"] in ("serious", "critical")]
    assert not serious, json.dumps([_place(rule) for rule in serious], indent=1)


def _place(rule: dict[str, Any]) -> dict[str, Any]:
    return {
        "rule": rule["id"],
        "at": [node["html"][:160] for node in rule["nodes"][:4]],
        "why": rule["nodes"][0]["failureSummary"],
    }


@pytest.mark.parametrize("view", ["member", "everyone", "compare", "pipeline"])
def test_a_phone_shows_every_view_without_scrolling_sideways(open_page: PageMaker, view: str) -> None:
    page = open_page("#/member/phone", **PHONE)
    page.get_by_label("Be this member").check()
    tiles(page).first.wait_for()
    play(page, "Horror", 2)
    if view != "member":
        page.get_by_role("link", name=view.capitalize()).click()
        page.locator({"everyone": ".card", "compare": ".ranked li", "pipeline": ".kpis"}[view]).first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390, page.evaluate(TOO_WIDE)
    page.evaluate("scrollTo(0, 0)")
    _keep(page, f"{view}-phone")


def test_nothing_inline_and_nothing_of_others_may_run(cinema_system: Cinema) -> None:
    for path in ("/", "/console/", "/console/main.js"):
        with urllib.request.urlopen(cinema_system.url + path) as answer:
            policy = answer.headers["Content-Security-Policy"]
            page = answer.read().decode()
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        if path != "/console/main.js":
            assert not re.search(r"\sstyle=|\son\w+=|<style|<script(?![^>]*\ssrc=)", page)


def _keep(page: Page, name: str) -> None:
    """A screenshot, kept to be looked at."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.wait_for_function("() => document.getAnimations().length === 0")
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True, timeout=ANSWER_MS)
