"""The catalogue on a broker: the commands that write it, a reader of it, and a real worker that follows it."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.metadata import MetadataRequest

from intentrec_core.errors import BrokerError, DataError
from intentrec_core.features.catalogue import Item
from stream.cli import root
from stream.kafka import items_reader, items_writer
from stream.kafka.clients import start_producer
from stream.kafka.items_reader import ItemsReader
from stream.kafka.items_writer import put_item, sync_items, withdraw_item, write_records
from stream.kafka.topics import count_partitions, create_topics
from stream.local_kafka import node
from stream.local_kafka.broker import Broker, start_broker
from stream.ops.metrics import Metrics
from stream.pipeline.live_catalogue import LiveCatalogue
from stream.settings import Settings
from stream.trainer.app import TrainerProcess
from stream.wire.catalogue_record import ItemChanges, item_hash
from stream.wire.codec import decode_recommendation
from stream.wire.messages import Recommendation
from tests.rigs.broker_fixtures import RigMaker
from tests.rigs.rig import ANSWERS_WITHIN_S, Rig, Worker
from tests.rigs.serving_rig import (
    ServingRigMaker,
    announce_bundle,
    counted,
    start_serving,
    until,
    wait_ready,
    world_plays,
)
from tests.rigs.trainer_rig import counted as trainer_counted
from tests.rigs.trainer_rig import make_settings, running, send
from tests.rigs.trainer_rig import until as until_true
from tests.worlds.tiny_world import TinyWorld
from tests.worlds.trainer_world import DOMAIN_TEXT, WalkingWorld

pytestmark = pytest.mark.timeout(240)


def write_items(path: Path, items: list[Item]) -> Path:
    """A catalogue file in JSON lines."""
    path.write_text("".join(json.dumps({"item_id": i.item_id, "title": i.title, **i.attributes}) + "\n" for i in items))
    return path


async def read(settings: Settings) -> ItemChanges:
    async with ItemsReader(settings) as topic:
        return await topic.changes()


def test_what_is_written_is_read_and_followed(
    make_rig: RigMaker, broker: Broker, world: TinyWorld, tmp_path: Path
) -> None:
    domain = tmp_path / "tiny.toml"
    domain.write_text(DOMAIN_TEXT)
    settings = make_rig(broker).settings.model_copy(update={"domain": str(domain)})

    async def test() -> None:
        assert await read(settings) == ItemChanges({}, -1)
        file = write_items(tmp_path / "items.jsonl", world.items)
        assert len((await sync_items(settings, file)).put) == len(world.items)
        assert not (await sync_items(settings, file)).put
        async with ItemsReader(settings) as topic:
            whole = await topic.changes()
            assert whole.items == {item_hash(item.item_id.encode()): item for item in world.items}
            withdrawn = await withdraw_item(settings, "item-3")
            put = await put_item(settings, Item("new", "A new one", {"year": 2001}))
            seen: dict[int, Item | None] = {}
            async for changes in topic.follow(lambda num_waiting, as_of_s: None):
                seen |= changes.items
                if changes.offset == put:
                    break
            assert seen == {item_hash(b"item-3"): None, item_hash(b"new"): Item("new", "A new one", {"year": 2001})}
            assert whole.offset < withdrawn < put
        async with ItemsReader(settings) as topic:
            items = await topic.everything()
        assert items["item-3"].withdrawn
        assert items["item-4"].written_by == "file"
        with pytest.raises(DataError, match="--allow-shrink"):
            await sync_items(settings, write_items(file, world.items[:10]))
        with pytest.raises(DataError, match="no items"):
            await sync_items(settings, write_items(file, []))
        hidden = [replace(item, attributes={**item.attributes, "available": "yes"}) for item in world.items]
        with pytest.raises(DataError, match="filter available available would hide every item"):
            await sync_items(settings, write_items(file, hidden))
        with pytest.raises(DataError, match="missing"):
            await sync_items(settings, tmp_path / "missing.jsonl")
        async with ItemsReader(settings) as topic:
            assert await topic.everything() == items, "a refused file changes nothing"

    asyncio.run(test())


def test_what_was_put_by_hand_stands_until_its_row_in_the_file_changes(
    make_rig: RigMaker, embedded_broker: Broker, world: TinyWorld, tmp_path: Path
) -> None:
    settings, file = make_rig(embedded_broker).settings, tmp_path / "items.jsonl"
    first, second, *others = world.items
    closed = Item(first.item_id, "Corrected", {**first.attributes, "available": False})

    async def shown(items: list[Item]) -> tuple[str, str | None]:
        plan = await sync_items(settings, write_items(file, items))
        async with ItemsReader(settings) as topic:
            found = (await topic.everything())[first.item_id]
        return plan.line(), found.title

    async def test() -> None:
        await sync_items(settings, write_items(file, world.items))
        await put_item(settings, closed)
        line, title = await shown(world.items)
        assert (line.partition(" (")[0], title) == (
            "0 items put, 0 withdrawn, 29 unchanged, 1 put by hand before and left so, since their rows are as before",
            "Corrected",
        )
        await put_item(settings, replace(closed, title="Corrected again"))
        assert (await shown(world.items))[1] == "Corrected again"
        await put_item(settings, replace(closed, title="Corrected before the row changes"))
        line, title = await shown([replace(first, title="A new row"), second, *others])
        assert "1 of them over what was put by hand" in line
        assert title == "A new row"

    asyncio.run(test())


def test_what_is_done_by_hand_while_a_file_is_copied_stands(
    make_rig: RigMaker, broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, write = make_rig(broker).settings, items_writer.write_records

    async def test() -> None:
        await sync_items(settings, write_items(tmp_path / "items.jsonl", [Item(f"m{i}", "Old") for i in range(10)]))
        meanwhile = [
            [withdraw_item(settings, "m0"), put_item(settings, Item("m9", "By hand"))],
            [put_item(settings, Item("m9", "By hand, again")), withdraw_item(settings, "m2")],
        ]

        async def write_late(settings: Settings, records: Iterable[tuple[bytes, bytes | None]]) -> list[int]:
            """Writes after the next hands have written."""
            monkeypatch.setattr(items_writer, "write_records", write)
            for by_hand in meanwhile.pop(0) if meanwhile else ():
                await by_hand
            monkeypatch.setattr(items_writer, "write_records", write_late)
            return await write(settings, records)

        monkeypatch.setattr(items_writer, "write_records", write_late)
        await sync_items(settings, write_items(tmp_path / "items.jsonl", [Item(f"m{i}", "New") for i in range(9)]))
        assert not meanwhile
        async with ItemsReader(settings) as topic:
            items = await topic.everything()
        assert (items["m0"].withdrawn, items["m2"].withdrawn) == (True, True)
        assert items["m9"].title == "By hand, again"
        assert {items[f"m{i}"].title for i in (1, 3, 4, 5, 6, 7, 8)} == {"New"}

    asyncio.run(test())


def test_a_tombstone_withdraws_until_the_item_is_written_again_by_hand_or_by_a_file(
    make_rig: RigMaker, embedded_broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last write wins, whether the tombstone comes before a file is copied, meanwhile or afterwards."""
    settings, write = make_rig(embedded_broker).settings, items_writer.write_records
    before, meanwhile, afterwards, unchanged, put_after, put_before, withdrawn, of_hand = (f"m{i}" for i in range(8))
    rows = dict.fromkeys((before, meanwhile, afterwards, unchanged, put_after, put_before, withdrawn), "Old")

    async def bury(*item_ids: str) -> None:
        await write(settings, [(item_id.encode(), None) for item_id in item_ids])

    async def sync() -> None:
        await sync_items(settings, write_items(tmp_path / "items.jsonl", [Item(i, title) for i, title in rows.items()]))

    async def titles() -> dict[str, str | None]:
        async with ItemsReader(settings) as topic:
            return {i: item.title for i, item in (await topic.everything()).items() if not item.withdrawn}

    async def write_late(settings: Settings, records: Iterable[tuple[bytes, bytes | None]]) -> list[int]:
        """Writes what a file changes after other programs and hands have written."""
        monkeypatch.setattr(items_writer, "write_records", write)
        await put_item(settings, Item(put_before, "By hand"))
        await bury(meanwhile, unchanged, put_after, put_before)
        await put_item(settings, Item(put_after, "By hand"))
        return await write(settings, records)

    async def test() -> None:
        await put_item(settings, Item(of_hand, "By hand"))
        await sync()
        await bury(before, of_hand)
        await withdraw_item(settings, withdrawn)
        rows.update({item_id: "New" for item_id in rows if item_id != unchanged})
        monkeypatch.setattr(items_writer, "write_records", write_late)
        await sync()
        await bury(afterwards)
        file_wrote = {before: "New", meanwhile: "New", put_before: "New"}
        assert await titles() == {**file_wrote, put_after: "By hand"}
        rows.pop(put_after)
        await sync()
        assert await titles() == {**file_wrote, put_after: "By hand", afterwards: "New", unchanged: "Old"}

    asyncio.run(test())


def test_a_topic_that_was_made_anew_is_read_from_its_beginning(
    make_rig: RigMaker, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    """With as many records as before, and more: its offsets say nothing. A worker would go on after the first of them.

    The reader sees nothing of it before all is written: it waits for the catalogue, and its client fetches nothing.
    """
    settings = make_rig(broker).settings

    async def make_anew(*item_ids: str) -> None:
        admin = AIOKafkaAdminClient(**settings.connection())
        await admin.start()
        await admin.delete_topics([settings.items_topic])
        created: list[str] = []
        while settings.items_topic not in created:  # at first the deletion may not be through yet
            created = await create_topics(settings)
        await admin.close()
        for item_id in item_ids:
            await put_item(settings, Item(item_id, f"The new {item_id}"))

    async def test() -> None:
        for item_id in "abc":
            await put_item(settings, Item(item_id, item_id))
        catalogue, goes_on = LiveCatalogue(), asyncio.Event()

        def titles() -> set[str]:
            return {item.title for item in catalogue.everything().items.values() if item is not None}

        async def follow(topic: ItemsReader) -> None:
            async for changes in topic.follow(lambda num_waiting, as_of_s: None):
                catalogue.apply(changes)
                await goes_on.wait()

        async with ItemsReader(settings) as topic:
            catalogue.apply(await topic.changes())
            assert titles() == {"a", "b", "c"}
            following = asyncio.create_task(follow(topic))
            try:
                for item_ids in ("bdef", "ghijkl"):
                    goes_on.clear()
                    await put_item(settings, Item("held", "held"))
                    await until_true(lambda: "held" in titles(), 30)
                    topic._consumer.pause(topic._source)
                    await make_anew(*item_ids)
                    topic._consumer.resume(topic._source)
                    goes_on.set()
                    wanted = {f"The new {item_id}" for item_id in item_ids}
                    await until_true(lambda wanted=wanted: titles() == wanted, 30)
                    assert catalogue.offset == len(item_ids) - 1
            finally:
                following.cancel()

    asyncio.run(test())
    assert caplog.text.count("was made anew: all of it is read again") >= 2


@pytest.fixture
def creating_broker(kafka_jars: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    """An Apache Kafka that creates a topic when a client asks for it, as Kafka does by default."""
    properties = node.server_properties

    def by_default(*nodes: Any) -> dict[str, str]:
        return {**properties(*nodes), "auto.create.topics.enable": "true"}

    monkeypatch.setattr(node, "server_properties", by_default)
    with start_broker(engine="kafka", data_dir=tmp_path / "kafka") as broker:
        yield broker


@pytest.mark.kafka
def test_a_deleted_topic_empties_no_list_where_the_broker_creates_topics(
    make_rig: RigMaker, creating_broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither does this reader create it, nor is it believed when another client has, before it holds a record."""
    settings = make_rig(creating_broker).settings

    async def test() -> None:
        await put_item(settings, Item("a", "a"))
        catalogue = LiveCatalogue()
        admin = AIOKafkaAdminClient(**settings.connection())
        await admin.start()

        def titles() -> set[str]:
            return {item.title for item in catalogue.everything().items.values() if item is not None}

        async def follow(topic: ItemsReader) -> None:
            async for changes in topic.follow(lambda num_waiting, as_of_s: None):
                catalogue.apply(changes)

        async with ItemsReader(settings) as topic:
            catalogue.apply(await topic.changes())
            following = asyncio.create_task(follow(topic))
            try:
                await admin.delete_topics([settings.items_topic])
                await until_true(lambda: "does not exist" in caplog.text, 30)
                assert await count_partitions(settings, settings.items_topic) == {}
                assert settings.items_topic not in await admin.list_topics()
                caplog.clear()
                created_by_another = MetadataRequest([settings.items_topic], allow_auto_topic_creation=True)
                while settings.items_topic not in await admin.list_topics():
                    await admin._send_request(created_by_another)
                await until_true(lambda: "holds no item" in caplog.text, 30)
                assert titles() == {"a"}
                await put_item(settings, Item("b", "b"))
                await until_true(lambda: titles() == {"b"}, 30)
            finally:
                following.cancel()
                await admin.close()

    asyncio.run(test())


def test_a_broker_that_is_slow_at_the_start_is_waited_for(
    make_rig: RigMaker, embedded_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look at a topic that is followed ends sooner: the next one comes."""
    settings = make_rig(embedded_broker).settings
    monkeypatch.setattr(items_reader, "_LOOK_DEADLINE_S", 0.0)
    assert asyncio.run(read(settings)) == ItemChanges({}, -1)


def test_a_record_that_is_no_item_hides_the_item_of_its_key(make_rig: RigMaker, embedded_broker: Broker) -> None:
    settings = make_rig(embedded_broker).settings

    async def test() -> None:
        await put_item(settings, Item("m1", "Heat"))
        producer = await start_producer(settings)
        await producer.send_and_wait(settings.items_topic, b"{", key=b"m1", partition=0)
        await producer.stop()
        changes = await read(settings)
        assert changes.items == {item_hash(b"m1"): None}
        assert changes.num_unreadable == 1

    asyncio.run(test())


def test_a_topic_of_several_partitions_is_refused(make_rig: RigMaker, embedded_broker: Broker) -> None:
    settings = make_rig(embedded_broker).settings
    settings = settings.model_copy(update={"items_topic": settings.plays_topic})
    refused = r"has 4 partitions; allowed: one, because an offset says what is known; delete it, then: intentrec topics"
    for refusing in (read(settings), put_item(settings, Item("a", "a")), withdraw_item(settings, "a")):
        with pytest.raises(BrokerError, match=refused):
            asyncio.run(refusing)


def test_a_topic_that_does_not_exist_is_named(make_rig: RigMaker, embedded_broker: Broker) -> None:
    settings = make_rig(embedded_broker).settings.model_copy(update={"items_topic": "no-such-items"})
    with pytest.raises(BrokerError, match=r"topic no-such-items on .* does not exist; create it: intentrec topics"):
        asyncio.run(read(settings))


@pytest.mark.kafka
def test_a_withdrawal_behind_an_open_transaction_is_waited_for(make_rig: RigMaker, kafka_broker: Broker) -> None:
    """The broker gives it to no reader of committed records, and says that the topic ends before it."""
    settings = make_rig(kafka_broker).settings
    lags: list[tuple[float, float]] = []

    async def test() -> None:
        await put_item(settings, Item("a", "a"))
        producer = AIOKafkaProducer(**settings.connection(), transactional_id=f"{settings.app_id}-open")
        await producer.start()
        async with ItemsReader(settings) as topic:
            await topic.changes()
            changes = topic.follow(lambda *lag: lags.append(lag))
            await producer.begin_transaction()
            await producer.send_and_wait(settings.items_topic, b"{}", key=b"z", partition=0)
            began_s = time.time()
            await withdraw_item(settings, "a")
            change = asyncio.create_task(anext(changes))
            await until_true(lambda: lags and lags[-1][0] == 2, 30)
            num_before = len(lags)
            await until_true(lambda: len(lags) >= num_before + 2, 30)
            assert all(num_waiting == 2 and as_of_s < began_s for num_waiting, as_of_s in lags[num_before:])
            await producer.abort_transaction()
            assert item_hash(b"a") in (await change).items
        await producer.stop()

    asyncio.run(test())


class Lists:
    """The lists that a rig's workers have published, and plays until there is a new one of every member."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.num_users = 6

    def play(self) -> dict[str, Recommendation]:
        """Plays once for each member, and returns the newest list of each."""
        self.rig.produce(world_plays(self.rig, self.num_users, num_users=self.num_users))
        self.rig.wait_for_answers(self.rig.num_sent)
        return {answer.user_id: answer for answer in self.all()}

    def all(self) -> list[Recommendation]:
        outputs = self.rig.outputs(self.rig.settings.recommendations_topic)
        return sorted((decode_recommendation(output.value) for output in outputs), key=lambda a: a.source.offset)


def serves(worker: Worker, version: str) -> bool:
    return counted(worker, "bundle_info", bundle=version) == 1


def follows(worker: Worker, offset: int) -> None:
    until(lambda: counted(worker, "catalogue_offset") >= offset, ANSWERS_WITHIN_S, worker)


def test_a_withdrawn_item_stays_away_through_swap_rollback_and_restart(
    embedded_broker: Broker, make_serving_rig: ServingRigMaker, world: TinyWorld, tmp_path: Path
) -> None:
    rig, (first, second) = make_serving_rig(embedded_broker, catalogue_source="topic", num_recommendations=40)
    settings, lists = rig.settings, Lists(rig)
    asyncio.run(sync_items(settings, write_items(tmp_path / "items.jsonl", world.items)))
    announce_bundle(rig, first)
    worker = start_serving(rig)
    wait_ready(worker)
    before = lists.play()["u1"]
    assert before.catalogue_offset == len(world.items) - 1
    withdrawn, kept = before.items[0].item_id, before.items[1].item_id

    offset = asyncio.run(withdraw_item(settings, withdrawn))
    retitled = asyncio.run(put_item(settings, Item(kept, "Another title", dict(world.catalogue.get(kept).attributes))))
    new = world.item(world.num_items)
    put = asyncio.run(put_item(settings, Item(new.item_id, new.title, {**new.attributes, "available": True})))
    follows(worker, put)
    answers = lists.play()
    titles: dict[str, Any] = {item.item_id: item.title for answer in answers.values() for item in answer.items}
    assert titles[kept] == "Another title"
    assert titles[new.item_id] == new.title, "on lists before anybody played it"
    assert offset < retitled < put == answers["u1"].catalogue_offset

    # Of another producer: a release in milliseconds, and a label in a list of lists.
    unread = {**new.attributes, "available": True, "release_s": 1_704_067_200_000, "genre": [["drama"]]}
    item = {"item_id": new.item_id, "title": "Unread", "attributes": unread}
    (cut,) = asyncio.run(write_records(settings, [(new.item_id.encode(), json.dumps(item).encode())]))
    follows(worker, cut)
    assert "Unread" in {item.title for answer in lists.play().values() for item in answer.items}, "it stays shown"
    assert counted(worker, "catalogue_cut_items") == 1
    assert worker.log().count(f"item {new.item_id!r} is shown without attributes that cannot be read") == 1

    for bundle in (second, first):
        announce_bundle(rig, bundle)
        until(lambda version=bundle.version: serves(worker, version), ANSWERS_WITHIN_S, worker)
        assert {answer.bundle for answer in lists.play().values()} == {bundle.version}
    assert worker.terminate() == 0, worker.log()[-2000:]
    worker = start_serving(rig)
    lists.play()
    ready_s = time.time()
    assert counted(worker, "catalogue_hidden_items") == 1
    assert counted(worker, "catalogue_added_items") == 1
    assert counted(worker, "catalogue_cut_items") == 1
    until(lambda: counted(worker, "catalogue_read_timestamp_seconds") > ready_s, ANSWERS_WITHIN_S, worker)
    assert counted(worker, "catalogue_lag_records") == 0
    assert worker.terminate() == 0, worker.log()[-2000:]

    past = [answer for answer in lists.all() if answer.catalogue_offset >= offset]
    assert {answer.bundle for answer in past} == {first.version, second.version}
    assert all(withdrawn not in [item.item_id for item in answer.items] for answer in past)
    assert any(withdrawn in [item.item_id for item in answer.items] for answer in lists.all()), "it was there before"


#: A training run that learns nothing and says what it was asked for.
ECHO = (
    sys.executable,
    "-c",
    "import json, sys; job = sys.stdin.readline(); print(json.dumps({'outcome': 'skipped', 'detail': job}))",
)


def test_the_trainer_copies_the_file_and_trains_with_the_topic(
    embedded_broker: Broker, world: TinyWorld, tmp_path: Path
) -> None:
    """Before each run: a file that is not believed changes nothing, and the run has what was put by hand."""
    file = write_items(tmp_path / "items.jsonl", world.items)
    settings = make_settings(
        embedded_broker,
        tmp_path,
        catalogue=file,
        catalogue_source="topic",
        retrain_interval_s=0.1,
        retrain_min_plays=100,
    )

    async def next_run(process: TrainerProcess) -> dict[str, Any]:
        """The job of the second run from now on: the first one may have begun."""
        for _ in range(2):
            process.last_result = None
            await until_true(lambda: process.last_result is not None)
        assert process.last_result is not None
        return json.loads(process.last_result.detail)

    def items_of(job: dict[str, Any]) -> dict[str, dict[str, Any]]:
        assert job["catalogue_is_whole"]
        return {row["item_id"]: row for row in map(json.loads, Path(job["catalogue"]).read_text().splitlines())}

    async def test() -> None:
        await create_topics(settings)
        await put_item(settings, Item("by-hand", "By hand", {"year": 1999}))
        await withdraw_item(settings, "item-2")
        await send(settings, WalkingWorld().rows(200))
        process = TrainerProcess(settings, Metrics(), retrain_command=ECHO)
        async with running(process):
            trained = items_of(await next_run(process))
            assert trained.keys() == {f"item-{i}" for i in range(30)} - {"item-2"} | {"by-hand"}
            assert trained["by-hand"] == {"item_id": "by-hand", "title": "By hand", "year": 1999}
            write_items(file, world.items[:3])
            assert items_of(await next_run(process)).keys() == trained.keys()
            write_items(file, world.items[:28])
            assert trained.keys() - items_of(await next_run(process)).keys() == {"item-28", "item-29"}
        for outcome in ("refused", "synced"):
            assert trainer_counted(process.metrics, "catalogue_syncs_total", outcome=outcome) >= 1

    asyncio.run(test())


def test_the_commands_say_what_they_did(
    make_rig: RigMaker, embedded_broker: Broker, world: TinyWorld, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    settings, file = make_rig(embedded_broker).settings, write_items(tmp_path / "items.jsonl", world.items)
    monkeypatch.setenv("INTENTREC_BROKER", settings.broker)
    monkeypatch.setenv("INTENTREC_ITEMS_TOPIC", settings.items_topic)

    def run(*arguments: str) -> tuple[int, str]:
        code = root.run(["items", *arguments])
        shown = capsys.readouterr()
        return code, shown.err if code else shown.out

    assert run("sync", str(file)) == (0, "30 items put, 0 withdrawn, 0 unchanged\n")
    assert run("withdraw", "item-3") == (0, f"withdrawn: {settings.items_topic} offset 30\n")
    assert run("put", "new", "--title", "A new one", "--attributes", '{"year": 2001}') == (
        0, f"put: {settings.items_topic} offset 31\n",
    )  # fmt: skip
    code, text = run("sync", str(file))
    assert (code, "0 items put, 0 withdrawn, 29 unchanged, 1 withdrawn by hand before" in text) == (0, True)
    code, text = run("list", "--limit", "3")
    assert code == 0
    assert "30 items: 29 of a file, 1 put by hand; 1 withdrawn by hand" in text
    assert "28 more" in text
    code, text = run("list", "--json")
    listed = {row["item_id"]: row for row in map(json.loads, text.splitlines())}
    assert listed["new"] == {"item_id": "new", "title": "A new one", "attributes": {"year": 2001}, "file_row": ""}
    write_items(file, world.items[:5])
    code, text = run("sync", str(file))
    assert (code, "--allow-shrink" in text) == (3, True)
    assert run("sync", str(file), "--allow-shrink")[1].startswith("0 items put, 25 withdrawn, 4 unchanged")
    assert run("put", "x" * 257)[0] == 2
    assert run("put", "m1", "--attributes", "[]")[0] == 2
    for item_id, is_known in (("item-1", True), ("nope", False), ("nope", True)):
        assert root.run(["items", "withdraw", item_id]) == 0
        shown = capsys.readouterr()
        assert shown.out.startswith("withdrawn: ")
        said = f"warning: {settings.items_topic} did not have the item {item_id!r}: if the id is right, a file that brings it"
        assert (said in shown.err) is not is_known
