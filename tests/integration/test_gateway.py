"""The gateway on a real broker: what it answers, and what its streams send."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from joserfc import jwt
from joserfc.jwk import OctKey

from intentrec_core.bundle.contents import load_bundle
from stream.gateway.bundle_view import BundleView
from stream.local_kafka.broker import Broker
from stream.wire.routing import home_partition
from tests.rigs.broker_fixtures import RigMaker
from tests.rigs.contract_caller import call_by_the_contract
from tests.rigs.gateway_rig import RunningGateway, a_process_of_its_own, messages, running, stream, until
from tests.rigs.rig import ANSWERS_WITHIN_S, NUM_PARTITIONS, Rig
from tests.rigs.serving_rig import ServingRigMaker, announce_bundle, start_serving
from tests.worlds.tiny_world import START_MS

pytestmark = pytest.mark.timeout(240)

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def rig(embedded_broker: Broker, make_rig: RigMaker) -> Rig:
    return make_rig(embedded_broker)


def test_the_newest_messages_of_a_member_are_answered_as_they_are(rig: Rig) -> None:
    async def body() -> None:
        async with messages(rig.settings) as written:
            await written.answer("a/ü\n")
            await written.answer("a/ü\n")
            async with running(rig.settings) as gateway:
                found = await gateway.get("/v1/users/a%2F%C3%BC%0A/recommendations")
                assert (found["user_id"], found["event_id"], len(found["items"])) == ("a/ü\n", "e1", 5)
                cut = await gateway.get("/v1/users/a%2F%C3%BC%0A/recommendations?k=2")
                assert cut == found | {"items": found["items"][:2]}
                assert (await gateway.get("/v1/users/a%2F%C3%BC%0A/intents"))["primary"]["label"] == "drama"
                offset = await written.answer("a/ü\n")
                await until(lambda: gateway.answers("/v1/users/a%2F%C3%BC%0A/intents", f"e{offset}"))

    asyncio.run(body())


def test_a_stream_begins_with_the_state_and_goes_on_with_changes(rig: Rig) -> None:
    async def body() -> None:
        async with messages(rig.settings) as written, running(rig.settings) as gateway:
            await written.answer("u")
            await until(lambda: gateway.answers("/v1/users/u/intents", "e0"))
            await until(lambda: gateway.answers("/v1/users/u/recommendations", "e0"))
            async with stream(gateway, "/v1/users/u/stream") as events:
                first, second = await events.next(), await events.next()
                assert [first.kind, second.kind] == ["intents", "recommendations"]
                await written.answer("other")
                await written.answer("u")
                third, fourth = await events.next(), await events.next()
                assert {third.kind, fourth.kind} == {"intents", "recommendations"}
                assert third.data["user_id"] == fourth.data["user_id"] == "u"
                last_id = fourth.id
            async with stream(gateway, "/v1/users/u/stream", **{"Last-Event-ID": last_id}) as events:
                offset = await written.answer("u")
                assert (await events.next()).data["event_id"] == f"e{offset}"

    asyncio.run(body())


def test_a_member_nobody_has_seen_gets_what_is_popular_marked_so(
    embedded_broker: Broker, make_serving_rig: ServingRigMaker
) -> None:
    rig, (bundle, _) = make_serving_rig(embedded_broker)
    announce_bundle(rig, bundle)

    async def body() -> None:
        async with running(rig.settings) as gateway:
            status, found = await gateway.ask("/v1/users/new/intents")
            assert (status, found["type"]) == (404, "urn:intentrec:problem:unknown-member")
            await until(lambda: _answers(gateway, "/v1/users/new/recommendations"))
            popular = await gateway.get("/v1/users/new/recommendations?k=3")
            # A filter of this domain reads a value of the member and has no default: it hides every item, and says so.
            hiding = {"filter": "at_most", "key": "maturity", "reason": "member_unknown", "value": "max_maturity"}
            assert popular == {
                "user_id": "new",
                "known": False,
                "bundle": bundle.version,
                "fallback": "popular",
                "items": [],
                "hidden_by": [hiding],
            }
            of_bundle = "/v1/users/new/recommendations?k=3&bundle="
            assert await gateway.get(of_bundle + bundle.version) == popular
            status, found = await gateway.ask(of_bundle + "b000000000000")
            assert (status, found["type"]) == (404, "urn:intentrec:problem:unknown-bundle")
            status, found = await gateway.ask("/v1/items?q=" + "+".join("abcdefghi"))
            assert (status, found["detail"]) == (400, "q has 9 words; allowed: 8")
            rows = await gateway.get("/v1/users/new/rows")
            assert rows == {"user_id": "new", "known": False, "bundle": bundle.version, "rows": []}
            first = (await gateway.get("/v1/items?q=ITEM+7&limit=5"))["items"][0]
            assert (await gateway.get(f"/v1/items/{first['item_id']}")) == first
            similar = await gateway.get(f"/v1/items/{first['item_id']}/similar?k=3")
            scores = [item["score"] for item in similar["items"]]
            assert len(scores) == 3
            assert scores == sorted(scores, reverse=True)
            assert first["item_id"] not in [item["item_id"] for item in similar["items"]]
            assert (await gateway.ask("/v1/items/nope/similar"))[0] == 404

    asyncio.run(body())


async def _answers(gateway: Any, path: str) -> bool:
    status, _ = await gateway.ask(path)
    return status == 200


def test_a_token_of_one_member_never_reaches_another(rig: Rig, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("s" * 40)
    ours, theirs, operator = (_token(key, sub) for sub in ("a", "b", "service intentrec:operator"))

    async def body() -> None:
        async with messages(rig.settings) as written, running(rig.settings, gateway_key_file=key) as gateway:
            await written.answer("a")
            await until(lambda: _answers_with(gateway, "/v1/users/a/intents", ours))
            for path in ("intents", "recommendations", "stream"):
                assert await _problem(gateway, f"/v1/users/a/{path}", theirs) == (403, "other-member")
                assert await _problem(gateway, f"/v1/users/a/{path}", None) == (401, "no-token")
            assert await _problem(gateway, "/v1/users/a/tickets", theirs, method="POST") == (403, "other-member")
            play = {"event_id": "e", "user_id": "a", "item_id": "i", "ts": rig.began_ms}
            assert await _problem(gateway, "/v1/plays", theirs, method="POST", json=play) == (403, "other-member")
            for path in ("/v1/users", "/v1/updates", "/v1/status"):
                assert await _problem(gateway, path, ours) == (403, "operators-only")
            assert await _answers_with(gateway, "/v1/users/a/intents", operator)
            assert await _answers_with(gateway, "/v1/status", operator)
            with pytest.raises(AssertionError):
                await gateway.get("/v1/users/a/intents", headers={"Authorization": "Bearer x"})

    asyncio.run(body())
    assert not rig.outputs(rig.settings.plays_topic), "no play may have been sent"


def test_a_ticket_opens_one_stream_of_its_member_once(rig: Rig, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("s" * 40)

    async def body() -> None:
        async with messages(rig.settings) as written, running(rig.settings, gateway_key_file=key) as gateway:
            await written.answer("a")
            token = {"Authorization": f"Bearer {_token(key, 'a')}"}
            _, found = await gateway.ask("/v1/users/a/tickets", "POST", headers=token)
            path = f"/v1/users/{{}}/stream?ticket={found['ticket']}"
            async with stream(gateway, path.format("a")) as events:
                assert (await events.next()).data["user_id"] == "a"
            assert await _problem(gateway, path.format("a"), None) == (401, "invalid-ticket")
            _, found = await gateway.ask("/v1/users/a/tickets", "POST", headers=token)
            other = f"/v1/users/b/stream?ticket={found['ticket']}"
            assert await _problem(gateway, other, None) == (401, "invalid-ticket")

    asyncio.run(body())


def test_a_play_is_in_the_topic_with_key_and_partition_before_the_client_is_told(rig: Rig) -> None:
    async def body() -> dict[str, Any]:
        async with running(rig.settings) as gateway:
            play = {"event_id": "e1", "user_id": "ü", "item_id": "i1", "ts": rig.began_ms, "later": True}
            status, sent = await gateway.ask("/v1/plays", "POST", json=play, headers={"traceparent": TRACE})
            assert (status, sent["event_id"], sent["topic"]) == (202, "e1", rig.settings.plays_topic)
            assert sent["partition"] == home_partition("ü".encode(), NUM_PARTITIONS)
            return sent

    sent = asyncio.run(body())
    (record,) = rig.outputs(rig.settings.plays_topic)
    assert (record.key, json.loads(record.value)["event_id"]) == ("ü".encode(), "e1")
    assert record.headers == {"traceparent": TRACE.encode()}
    assert sent["offset"] == 0


#: What a worker would reject, and how the gateway says so. The last one says more about itself than it may.
REJECTED = [
    (b"", 400, "empty"),
    (b"{", 400, "malformed"),
    (b"x" * 1_000_001, 413, None),
    (b'{"event_id":"e","user_id":"u","item_id":"i","ts":1}', 422, "out_of_range"),
    (b'{"event_id":"e","user_id":"u","item_id":"i","ts":"2099-01-01"}', 422, "future"),
    (b'{"event_id":"e","user_id":"u","ts":1772396100000}', 422, "invalid_field"),
    (b'{"event_id":"e","user_id":"u","item_id":"i","ts":1772396100000,"schema_version":2}', 422, "unknown_schema"),
]


def test_a_play_that_a_worker_would_reject_is_refused_with_its_reason_and_not_sent(rig: Rig) -> None:
    async def body() -> None:
        async with running(rig.settings) as gateway:
            for value, status, reason in REJECTED:
                found = await gateway.ask("/v1/plays", "POST", data=value, headers={"Content-Type": "application/json"})
                assert (found[0], found[1].get("reason")) == (status, reason), found

    asyncio.run(body())
    assert not rig.outputs(rig.settings.plays_topic)


def test_two_gateways_share_the_members_and_one_takes_over_when_the_other_is_killed(rig: Rig) -> None:
    async def body() -> None:
        users = [f"u{n}" for n in range(12)]
        async with messages(rig.settings) as written, running(rig.settings) as first:
            for user in users:
                await written.answer(user)
            async with a_process_of_its_own(rig) as (second, process):
                await until(lambda: _have(2, first, second))
                taken = set(await second.partitions())
                there = [user for user in users if home_partition(user.encode(), NUM_PARTITIONS) in taken]
                assert 0 < len(there) < len(users)
                for gateway in (first, second):
                    for user in users:
                        found = await gateway.get(f"/v1/users/{user}/recommendations?k=1")
                        assert (found["user_id"], len(found["items"])) == (user, 1)
                headers = {"Intentrec-Forwarded": "1"}
                path = f"/v1/users/{there[0]}"
                assert await _problem(first, f"{path}/intents", None, headers=headers) == (503, "no-owner")
                async with stream(first, f"{path}/stream") as events:
                    seen = [await events.next(), await events.next()]
                    offset = await written.answer(there[0])
                    seen += [await events.next(), await events.next()]
                    assert {event.data["event_id"] for event in seen[2:]} == {f"e{offset}"}
                    process.send(signal.SIGKILL)
                    assert await events.next() is None
            # EventSource comes back at once, and again and again: until the member has a new owner, its streams just end.
            async with stream(first, f"{path}/stream?last_event_id={seen[-1].id}") as events:
                assert (await events.next()).data == {"reason": "moved"}
            offset = await written.answer(there[0])
            await until(lambda: first.answers(f"{path}/intents", f"e{offset}"))
            await until(lambda: first.answers(f"{path}/recommendations", f"e{offset}"))
            async with stream(first, f"{path}/stream?last_event_id={seen[-1].id}") as events:
                assert [(await events.next()).data["event_id"] for _ in range(2)] == [f"e{offset}"] * 2
            assert len(await first.partitions()) == NUM_PARTITIONS

    asyncio.run(body())


def test_streams_of_members_that_move_to_a_gateway_that_joins_end_and_the_others_go_on(rig: Rig) -> None:
    async def body() -> None:
        users = [f"u{n}" for n in range(12)]
        async with (
            messages(rig.settings) as written,
            running(rig.settings) as first,
            contextlib.AsyncExitStack() as stack,
        ):
            events = {
                user: await stack.enter_async_context(stream(first, f"/v1/users/{user}/stream")) for user in users
            }
            async with running(rig.settings) as second:
                await until(lambda: _have(2, first, second))
                own = set(await first.partitions())
                stay = [user for user in users if home_partition(user.encode(), NUM_PARTITIONS) in own]
                assert 0 < len(stay) < len(users)
                for user in users:
                    offset = await written.answer(user)
                    event = await events[user].next()
                    if user in stay:
                        assert event.data["event_id"] == f"e{offset}"
                    else:
                        assert (event.kind, event.data) == ("bye", {"reason": "moved"})
                assert (await first.get("/v1/status"))["gateway"]["streams"] == len(stay), (
                    "a stream that ended has no slot"
                )

    asyncio.run(body())


def test_a_gateway_that_ends_says_goodbye_on_the_streams_that_it_passes_on(rig: Rig) -> None:
    async def body() -> None:
        users = [f"u{n}" for n in range(12)]
        async with running(rig.settings) as first, running(rig.settings) as second:
            await until(lambda: _have(2, first, second))
            taken = set(await second.partitions())
            there = next(user for user in users if home_partition(user.encode(), NUM_PARTITIONS) in taken)
            async with stream(first, f"/v1/users/{there}/stream") as events:
                assert first.process is not None
                first.process.stop()
                last = await events.next()
                assert last is not None
                assert (last.kind, last.data) == ("bye", {"reason": "stopping"})

    asyncio.run(body())


async def _have(num: int, *gateways: RunningGateway) -> bool:
    return {len(await gateway.partitions()) for gateway in gateways} == {num}


def test_the_page_of_the_api_needs_nothing_from_elsewhere(rig: Rig) -> None:
    async def body() -> None:
        async with running(rig.settings) as gateway:
            async with gateway.client.get(gateway.url + "/docs") as answer:
                page, policy = await answer.text(), answer.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            sources = re.findall(r'(?:src|href)="([^"]+)"', page)
            assert "data:," in sources
            assert len(sources) == 4
            for source in sources:
                if source != "data:,":
                    assert source.startswith("/"), source
                    async with gateway.client.get(gateway.url + source) as answer:
                        assert answer.status == 200
            assert (await gateway.get("/v1/openapi.json"))["openapi"].startswith("3.1")

    asyncio.run(body())


def test_it_ends_with_0_on_sigterm_and_says_goodbye_to_its_streams(rig: Rig) -> None:
    async def body() -> None:
        async with a_process_of_its_own(rig) as (gateway, process):
            async with stream(gateway, "/v1/users/u/stream") as events:
                process.send(signal.SIGTERM)
                assert (await events.next()).data == {"reason": "stopping"}
                assert await events.next() is None
            assert process.wait() == 0, process.log()[-3000:]

    asyncio.run(body())


def test_without_a_key_it_refuses_to_serve_others(rig: Rig) -> None:
    process = rig.start_worker(module="stream.cli", arguments=["gateway", "--host", "0.0.0.0"])
    assert process.wait(90) == 2
    assert "set gateway_key_file" in process.log()


async def _answers_with(gateway: RunningGateway, path: str, token: str) -> bool:
    status, _ = await gateway.ask(path, headers={"Authorization": f"Bearer {token}"})
    return status == 200


async def _problem(
    gateway: RunningGateway,
    path: str,
    token: str | None,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    **options: Any,
) -> tuple[int, str]:
    """Status and kind of the problem that a request is answered with."""
    given = (headers or {}) | ({} if token is None else {"Authorization": f"Bearer {token}"})
    async with gateway.client.request(method, gateway.url + path, headers=given, **options) as answer:
        assert answer.headers["Content-Type"] == "application/problem+json", await answer.text()
        found = await answer.json(content_type=None)
        assert found["status"] == answer.status
        return answer.status, found["type"].rpartition(":")[2]


def _token(key: Path, sub_and_scope: str) -> str:
    sub, _, scope = sub_and_scope.partition(" ")
    claims = {"sub": sub, "scope": scope, "exp": int(time.time()) + 600}
    return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(key.read_bytes()))


def test_rank_and_rows_say_what_to_do_where_messages_lack_them(
    embedded_broker: Broker, make_serving_rig: ServingRigMaker
) -> None:
    rig, (bundle, _) = make_serving_rig(embedded_broker)
    announce_bundle(rig, bundle)
    view = BundleView.of(load_bundle(bundle.path))
    is_shown = view.allowed({"max_maturity": 9.0})
    shown, hidden = (
        [view.vocabulary.item_ids[row] for row in np.flatnonzero(is_shown)[:5]],
        view.vocabulary.item_ids[next(row for row in range(1, len(is_shown)) if not is_shown[row])],
    )
    vector = np.random.default_rng(1).normal(size=view.vectors.shape[1]).astype("<f4")

    async def body() -> None:
        async with messages(rig.settings) as written, running(rig.settings, gateway_rate=0) as gateway:
            ranked = {"method": "POST", "json": {"items": [*shown, hidden, "nope", shown[0]]}}
            assert await _problem(gateway, "/v1/users/u/rank", None, **ranked) == (404, "unknown-member")
            await written.answer("u", bundle=bundle.version)
            await until(lambda: gateway.answers("/v1/users/u/recommendations", "e0"))
            assert await _problem(gateway, "/v1/users/u/rank", None, **ranked) == (409, "query-off")
            assert await _problem(gateway, "/v1/users/u/rows", None) == (409, "rows-off")
            query = base64.b64encode(vector.tobytes()).decode()
            rows = [{"row": "popular", "title": "Popular", "items": []}]
            fields = {"query": query, "filter_values": {"max_maturity": 9}, "rows": rows}
            await written.answer("u", bundle="b0000000000ff", **fields)
            await until(lambda: gateway.answers("/v1/users/u/recommendations", "e1"))
            assert await _problem(gateway, "/v1/users/u/rank", None, **ranked) == (409, "other-bundle")
            await written.answer("u", bundle=bundle.version, **fields)
            await until(lambda: gateway.answers("/v1/users/u/recommendations", "e2"))
            await until(lambda: _is_loaded(gateway, bundle.version))
            _, found = await gateway.ask("/v1/users/u/rank", **ranked)
            scores = {item: float(view.vectors[view.vocabulary.row(item)] @ vector) for item in shown}
            best = sorted(scores, key=lambda item: -scores[item])
            assert [item["item_id"] for item in found["items"]] == best
            assert (found["filtered"], found["unknown"]) == ([hidden], ["nope"])
            assert found["source"]["offset"] == 2
            assert (await gateway.get("/v1/users/u/rows"))["rows"] == rows
            before = await gateway.get("/v1/users/u/recommendations?bundle=b0000000000ff")
            assert before["event_id"] == "e1"
            other = "/v1/users/u/intents?bundle=b00000000dead"
            assert await _problem(gateway, other, None) == (404, "unknown-bundle")
            for bad in ({"items": []}, {"items": ["x"] * 1001}, {"items": "x"}, {}):
                refused = await _problem(gateway, "/v1/users/u/rank", None, method="POST", json=bad)
                assert refused == (400, "invalid-request")

    asyncio.run(body())


async def _is_loaded(gateway: RunningGateway, version: str) -> bool:
    bundle = (await gateway.get("/v1/status"))["bundle"]
    return bool(bundle["version"] == version and bundle["loaded"])


@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisDeprecationWarning")  # schemathesis's own
def test_schemathesis_finds_nothing(embedded_broker: Broker, make_serving_rig: ServingRigMaker) -> None:
    """Requests made from the contract, and answers held to it: with a member, a bundle, and everything else unknown."""
    rig, (bundle, _) = make_serving_rig(embedded_broker)
    announce_bundle(rig, bundle)

    async def body() -> None:
        async with messages(rig.settings) as written, running(rig.settings) as gateway:
            await written.answer("u", bundle=bundle.version)
            await until(lambda: _is_loaded(gateway, bundle.version))
            await until(lambda: gateway.answers("/v1/users/u/recommendations", "e0"))
            found = await asyncio.to_thread(call_by_the_contract, gateway.url)
            assert not found, "\n".join(found)

    asyncio.run(body())


def test_limits_of_a_members_token_and_other_origins(rig: Rig, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("s" * 40)
    options: dict[str, Any] = {
        "gateway_key_file": key,
        "gateway_rate": 0.01,
        "gateway_max_streams": 1,
        "gateway_cors": "https://app.example",
    }

    async def body() -> None:
        async with running(rig.settings, **options) as gateway:
            token, operator = _token(key, "a"), _token(key, "o intentrec:operator")
            assert await _problem(gateway, "/v1/users/a/intents", token) == (404, "unknown-member")
            async with gateway.client.get(
                gateway.url + "/v1/users/a/intents", headers={"Authorization": f"Bearer {token}"}
            ) as answer:
                assert answer.status == 429
                assert 1 <= int(answer.headers["Retry-After"]) <= 100
            for _ in range(5):
                assert await _problem(gateway, "/v1/users/a/intents", operator) == (404, "unknown-member")
            async with stream(gateway, "/v1/users/a/stream", Authorization=f"Bearer {operator}"):
                assert await _problem(gateway, "/v1/users/b/stream", operator) == (503, "too-many-streams")
            asked = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
            for origin, allowed in (("https://app.example", "https://app.example"), ("https://evil.example", None)):
                async with gateway.client.options(
                    gateway.url + "/v1/users/a/intents", headers=asked | {"Origin": origin}
                ) as answer:
                    assert answer.headers.get("Access-Control-Allow-Origin") == allowed
            async with gateway.client.get(gateway.url + "/v1/openapi.json") as answer:
                assert answer.headers["Cache-Control"] == "no-store"

    asyncio.run(body())


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
def test_the_commands_of_the_document_do_what_it_says(rig: Rig) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs/gateway.md").read_text("utf-8")
    commands = re.findall(r"^curl .*$", text, re.M)
    assert len(commands) == 3

    async def body() -> list[str]:
        async with messages(rig.settings) as written, running(rig.settings) as gateway:
            await written.answer("u7")
            await until(lambda: gateway.answers("/v1/users/u7/recommendations", "e0"))
            await until(lambda: gateway.answers("/v1/users/u7/intents", "e0"))
            said = []
            for command in commands:
                own = command.replace("http://127.0.0.1:9470", gateway.url).replace("curl ", "curl -s ")
                process = await asyncio.create_subprocess_shell(f"exec {own}", stdout=asyncio.subprocess.PIPE)
                assert process.stdout is not None
                if "/stream" in own:  # it never ends by itself
                    read = b""
                    while read.count(b"\n\n") < 3:
                        read += await process.stdout.readline()
                    process.kill()
                    await process.wait()
                else:
                    read = (await process.communicate())[0]
                said.append(read.decode())
            return said

    recommended, streamed, posted = asyncio.run(body())
    assert [item["item_id"] for item in json.loads(recommended)["items"]] == ["item-1", "item-2", "item-3"]
    assert streamed.startswith("retry: 1000\n\nid: ")
    assert "event: intents\ndata: {" in streamed
    assert "event: recommendations\ndata: {" in streamed
    assert json.loads(posted)["event_id"] == "e1"


def test_a_play_that_is_posted_comes_back_from_a_worker_on_the_stream_and_ranks_as_the_list(
    embedded_broker: Broker, make_serving_rig: ServingRigMaker
) -> None:
    """The whole path, with the real worker: the query and the filters' values that it publishes give its own list again."""
    rig, (bundle, _) = make_serving_rig(embedded_broker, publish_embedding=True, num_recommendations=8)
    announce_bundle(rig, bundle)
    worker = start_serving(rig)

    async def body() -> None:
        async with running(rig.settings) as gateway, stream(gateway, "/v1/users/u/stream") as events:
            for number, item in enumerate(("item-3", "item-8", "item-12")):
                play = {
                    "event_id": f"e{number}",
                    "user_id": "u",
                    "item_id": item,
                    "ts": START_MS + 10_000 * number,
                    "duration_s": 90,
                    "context": {"device": "tv", "max_maturity": 4},
                }
                status, sent = await gateway.ask("/v1/plays", "POST", json=play)
                assert status == 202, sent
            found = None
            async with asyncio.timeout(ANSWERS_WITHIN_S):
                while found is None or found["event_id"] != "e2":
                    event = await events.next(ANSWERS_WITHIN_S)
                    assert event is not None
                    found = event.data if event.kind == "recommendations" else found
            await until(lambda: _is_loaded(gateway, bundle.version))
            assert found["filter_values"] == {"max_maturity": 4.0}
            listed = found["items"]
            assert len(listed) == 8
            candidates = [item["item_id"] for item in reversed(listed)]
            _, ranked = await gateway.ask("/v1/users/u/rank", "POST", json={"items": [*candidates, "item-3"]})
            assert ranked["event_id"] == "e2"
            order = [item["item_id"] for item in ranked["items"] if item["item_id"] != "item-3"]
            assert order == [item["item_id"] for item in listed]
            scores = {item["item_id"]: item["score"] for item in ranked["items"]}
            for item in listed:
                assert scores[item["item_id"]] == pytest.approx(item["score"], abs=2e-4)

    asyncio.run(body())
    assert worker.terminate() == 0, worker.log()[-2000:]
