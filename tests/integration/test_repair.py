"""Redrive and repair on a real broker: dead letters sent again, histories shown and verified, members forgotten."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import confluent_kafka
import pytest
from aiokafka.consumer import fetcher
from confluent_kafka.admin import AdminClient

from intentrec_core.history.changelog_codec import user_of
from stream.cli import root
from stream.kafka.header_names import KeptRecords, ReadableRecords
from stream.local_kafka.broker import Broker
from stream.wire.routing import home_partition, key_hash
from tests.faults.load import GroupView
from tests.rigs.broker_fixtures import RigMaker
from tests.rigs.command_line import Commands, commands_with
from tests.rigs.odd_headers import send_with_odd_header
from tests.rigs.rig import NUM_PARTITIONS, Rig
from tests.rigs.verdict import judge, read_all

pytestmark = pytest.mark.timeout(240)

#: A user id with a NUL, and how it is written on a command line.
NUL, ESCAPED_NUL = "a\0b", r"a\u0000b"


@pytest.fixture
def rig(broker: Broker, make_rig: RigMaker) -> Rig:
    return make_rig(broker)


@pytest.fixture
def run(rig: Rig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Commands:
    return commands_with(rig.settings, monkeypatch, capsys, columns=200)


def play(user: str, event: str, **fields: Any) -> bytes:
    document = {"event_id": event, "user_id": user, "item_id": "i1", "ts": 1_700_000_000_000}
    return json.dumps(document | fields).encode()


def test_a_member_is_shown_verified_and_forgotten_while_a_worker_runs(rig: Rig, run: Commands) -> None:
    worker = rig.start_worker()
    rig.produce(rig.plays(400))
    rig.produce([json.loads(play(NUL, "odd"))])
    rig.wait_for_answers(401)
    with GroupView(rig.settings) as group:
        group.catches_up(rig)  # what is shown is the changelog, and a cut is made after the answers
    code, shown, _ = run("state", "show", "u7", "--json")
    printed = json.loads(shown)
    assert code == 0
    assert (printed["partition"], printed["plays_applied"]) == (home_partition(b"u7", NUM_PARTITIONS), 10)
    assert [p["index"] for p in printed["plays"]] == list(range(10))
    assert run("state", "show", "u7")[1].count(printed["plays"][0]["item_hash"]) >= 1

    code, said, error = run("forget", "u7", "--yes", "--wait", "60")
    assert code == 0, error
    assert re.search(rf"plays-{printed['partition']} offset \d+", said)
    code, _, error = run("state", "show", "u7")
    assert (code, "never played, or was forgotten" in error) == (3, True)

    # No argument can hold a NUL.
    code, shown, error = run("state", "show", ESCAPED_NUL, "--escaped")
    assert (code, error.count("\n")) == (0, 1), error
    assert re.search(rf"^user +{re.escape(ESCAPED_NUL)}$", shown, re.M)
    assert run("forget", ESCAPED_NUL, "--escaped", "--yes", "--wait", "60")[0] == 0
    assert run("state", "show", ESCAPED_NUL, "--escaped")[0] == 3

    rig.produce(rig.plays(400))
    rig.wait_for_answers(801)
    assert worker.terminate() == 0, worker.log()[-2000:]
    assert json.loads(run("state", "show", "u7", "--json")[1])["plays_applied"] == 10, "a new history"
    assert json.loads(run("state", "show", "u8", "--json")[1])["plays_applied"] == 20
    verdict = judge(rig.settings, rig.layout)
    assert verdict.holds, verdict
    code, said, _ = run("state", "verify")
    assert code == 0, said
    assert said.count("members exact") == NUM_PARTITIONS


def test_forgetting_asks_first_and_an_erasure_request_that_no_worker_reads_says_so(
    rig: Rig, run: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("typer.confirm", lambda *_, **__: False)
    code, _, error = run("forget", "u7")
    assert (code, "nothing was sent" in error) == (2, True)
    code, _, error = run("forget", "u7", "--yes", "--wait", "0.5")
    assert (code, "it stands" in error) == (3, True)


def test_header_names_that_are_not_text_stop_no_look(rig: Rig, run: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    # As in a process of its own: whatever ran here before may have had aiokafka's classes wrapped.
    monkeypatch.setattr(fetcher, "MemoryRecords", KeptRecords.__base__)
    monkeypatch.setattr(fetcher, "PartitionRecords", ReadableRecords.__base__)
    worker = rig.start_worker()
    asyncio.run(send_with_odd_header(rig.settings, rig.plays(20)))
    rig.wait_for_answers(20)
    assert worker.terminate() == 0, worker.log()[-2000:]
    asyncio.run(send_with_odd_header(rig.settings, [{"user_id": "u7"}], rig.settings.dead_letter_topic))
    code, said, error = run("state", "verify")
    assert (code, said.count(" exact")) == (0, NUM_PARTITIONS), error
    code, said, error = run("dlq", "list")
    assert (code, "1 dead letters" in said) == (0, True), error


def test_verify_tells_which_member_differs_in_what(rig: Rig, run: Commands) -> None:
    worker = rig.start_worker()
    rig.produce(rig.plays(200))
    rig.wait_for_answers(200)
    assert worker.terminate() == 0
    records = [r for r in read_all(rig.settings, rig.settings.changelog_topic, "read_committed") if r.key]
    last = [record for record in records if record.key and user_of(record.key) == b"u7"][-1]
    assert last.value is not None
    damaged = bytearray(last.value)
    damaged[17] ^= 1  # the first byte behind the block's header: of an item's hash
    producer = confluent_kafka.Producer({"bootstrap.servers": rig.broker.address})
    producer.produce(rig.settings.changelog_topic, bytes(damaged), last.key, partition=last.partition)
    assert producer.flush(30) == 0
    code, said, error = run("state", "verify", "--partition", str(last.partition))
    assert code == 5
    assert "1 members' histories" in error
    assert re.search(r"u7: item_hash of play 0 of 5 is \d+, folded again it is \d+; 1 of 5", said), said
    others = [p for p in range(NUM_PARTITIONS) if p != last.partition]
    assert run("state", "verify", *(word for p in others for word in ("--partition", str(p))))[0] == 0
    code, _, error = run("state", "verify", "--partition", "4")
    assert (code, "allowed: 0 to 3" in error) == (2, True)


@pytest.mark.kafka
def test_verify_claims_nothing_of_members_whose_beginning_was_deleted(
    kafka_broker: Broker, make_rig: RigMaker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rig = make_rig(kafka_broker)
    for name, value in rig.settings.model_dump(exclude_unset=True).items():
        monkeypatch.setenv(f"INTENTREC_{name.upper()}", str(value))
    worker = rig.start_worker()
    rig.produce(rig.plays(400))
    rig.wait_for_answers(400)
    deleted = [confluent_kafka.TopicPartition(rig.settings.plays_topic, p, 60) for p in range(NUM_PARTITIONS)]
    admin = AdminClient({"bootstrap.servers": kafka_broker.address})
    for future in admin.delete_records(deleted).values():
        future.result(30)
    for number in range(40):
        rig.send(f"new{number}".encode(), play(f"new{number}", f"n{number}"))
    rig.flush()
    rig.wait_for_answers(440)
    assert worker.terminate() == 0
    capsys.readouterr()
    assert root.run(["state", "verify", "--json"]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {done["first_offset"] for done in printed} == {60}
    assert sum(done["num_same"] for done in printed) == 40
    assert sum(done["num_unknown"] for done in printed) == 40
    assert not any(done["differences"] for done in printed)


def test_dead_letters_are_listed_shown_and_sent_again_with_a_count(rig: Rig, run: Commands) -> None:
    topic, home = rig.settings.plays_topic, home_partition(b"u1", NUM_PARTITIONS)
    rig.send(b"u1", b'{"half', headers={"trace": b"t1"})
    rig.send(b"u1", play("u1", "misplaced"), partition=(home + 1) % NUM_PARTITIONS)
    rig.send(b"u1", b"x" * 1_500_000)
    rig.send(b"u1", play("u1", "good"))
    rig.flush()
    worker = rig.start_worker()
    rig.wait_for_answers(1)
    rig.wait_for_outputs(3, rig.settings.dead_letter_topic)
    code, shown, _ = run("dlq", "list", "--json")
    dead_letters = {found["reason"]: found for found in map(json.loads, shown.splitlines())}
    assert code == 0
    assert set(dead_letters) == {"malformed", "wrong_partition", "oversized"}
    assert [dead_letters[reason]["is_cut"] for reason in ("malformed", "wrong_partition", "oversized")] == [0, 0, 1]
    assert dead_letters["malformed"]["headers"] == {"trace": "t1"}
    assert "3 dead letters" in run("dlq", "list")[1]
    assert '{"half' in run("dlq", "show", dead_letters["malformed"]["dead_letter"])[1]
    assert run("dlq", "show", dead_letters["malformed"]["dead_letter"], "--raw")[1] == '{"half'
    code, _, error = run("dlq", "show", "0:999")
    assert (code, "retention may have deleted it" in error) == (3, True)

    code, said, _ = run("dlq", "redrive", "--dry-run")
    assert (code, "2 would be sent again" in said, "1 left: only the start" in said) == (0, True, True), said
    code, said, _ = run("dlq", "redrive", "--reason", "wrong_partition")
    assert "1 sent again: wrong_partition 1" in said
    rig.wait_for_answers(2)
    assert run("dlq", "redrive", "--reason", "malformed")[0] == 0
    rig.wait_for_outputs(4, rig.settings.dead_letter_topic)
    newest = json.loads(run("dlq", "list", "--json", "--limit", "1")[1])
    assert (newest["redrives"], newest["headers"]["trace"]) == (1, "t1")
    assert newest["headers"]["intentrec-redrive-of"] == dead_letters["malformed"]["dead_letter"]
    said = run("dlq", "redrive", "--reason", "malformed", "--max-redrives", "1")[1]
    assert "1 left: was sent again and failed again" in said, said
    assert "1 left: sent again too often" in said, said
    assert worker.terminate() == 0, worker.log()[-2000:]
    sent_again = [r for r in read_all(rig.settings, topic) if dict(r.headers).get("intentrec-redrives")]
    misplaced = next(record for record in sent_again if record.value == play("u1", "misplaced"))
    assert (misplaced.partition, misplaced.key) == (key_hash(b"u1") % NUM_PARTITIONS, b"u1")
    assert {record.value for record in sent_again} == {play("u1", "misplaced"), b'{"half'}
    verdict = judge(rig.settings, rig.layout)
    assert verdict.holds, verdict
    assert rig.state()["u1"].count == 2


def test_a_limited_run_says_where_to_go_on_and_together_they_send_each_dead_letter_once(
    rig: Rig, run: Commands
) -> None:
    for number in range(30):
        rig.send(f"u{number}".encode(), b"{%d" % number)
    rig.flush()
    worker = rig.start_worker()
    rig.wait_for_outputs(30, rig.settings.dead_letter_topic)
    assert worker.terminate() == 0
    code, said, _ = run("dlq", "redrive", "--limit", "12")
    rest = re.findall(r"--from \d+:\d+", said)
    assert (code, "12 sent again" in said, bool(rest)) == (0, True, True), said
    assert "18 sent again" in run("dlq", "redrive", *" ".join(rest).split())[1]
    sent = [r.value for r in read_all(rig.settings, rig.settings.plays_topic) if r.headers]
    assert sorted(value or b"" for value in sent) == sorted(b"{%d" % number for number in range(30))
