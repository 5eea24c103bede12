"""Every example runs as a user would run it: the library alone, and next to a real worker on a broker."""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from aiokafka.partitioner import murmur2
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Producer, TopicPartition

from stream.local_kafka.broker import Broker
from stream.wire.codec import decode_intent
from tests.rigs.broker_fixtures import RigMaker
from tests.rigs.rig import Rig
from tests.rigs.serving_rig import ServingRigMaker, announce_bundle, start_serving, world_plays
from tests.worlds.bundle_world import make_bundle
from tests.worlds.tiny_world import TinyWorld

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run_example(
    name: str, *arguments: str, cwd: Path, given: str = "", timeout_s: float = 110
) -> subprocess.CompletedProcess[str]:
    """An example in a process of its own, with a home that has no data set."""
    command = ["node"] if name.endswith(".js") else [sys.executable]
    return subprocess.run(
        [*command, str(EXAMPLES / name), *arguments],
        input=given, cwd=cwd, env=os.environ | {"HOME": str(cwd)}, capture_output=True, text=True, timeout=timeout_s,
    )  # fmt: skip


def run_soundly(name: str, *arguments: str, cwd: Path, given: str = "") -> Sequence[str]:
    """The lines that an example prints; it must end well."""
    done = run_example(name, *arguments, cwd=cwd, given=given)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_every_example_is_in_the_list_and_run_here() -> None:
    listed = (EXAMPLES / "README.md").read_text()
    here = Path(__file__).read_text()
    for path in EXAMPLES.iterdir():
        if path.suffix in (".py", ".js"):
            assert f"({path.name})" in listed
            assert f'"{path.name}"' in here


def test_train_and_serve_answers_the_plays_that_come_and_saves_the_model(tmp_path: Path) -> None:
    lines = run_soundly("train_and_serve.py", "--plays", "1500", "--save", "kept", cwd=tmp_path)
    assert lines[0] == "training on 1,500 plays of the domain video"
    assert sum(" played " in line for line in lines) == 5
    assert sum(line.startswith("    likely intent  ") for line in lines) == 5
    assert any(line.startswith("    show next ") and line.count(", ") == 2 for line in lines)
    assert lines[-1].startswith("saved to kept: ")
    assert (tmp_path / "kept" / "saved_model.json").is_file()


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node on the PATH")
def test_the_partition_in_javascript_is_kafkas(tmp_path: Path) -> None:
    ids = ["u7", "a", "ab", "abc", "abcd", "é", "日本語の利用者", "😀", " ", "x" * 256]
    ids += [f"{n * 2_654_435_761 % 2**32:x}-{'ü' * (n % 5)}" for n in range(500 - len(ids))]
    assert len(set(ids)) == 500
    for num_partitions in (1, 8, 97):
        lines = run_soundly("partition_of.js", str(num_partitions), cwd=tmp_path, given="\n".join(ids))
        assert [int(line) for line in lines] == [(murmur2(i.encode()) & 0x7FFFFFFF) % num_partitions for i in ids]
    assert run_soundly("partition_of.js", "8", *ids[:3], cwd=tmp_path) == [
        str((murmur2(i.encode()) & 0x7FFFFFFF) % 8) for i in ids[:3]
    ]
    refused = run_example("partition_of.js", "eight", cwd=tmp_path)
    assert (refused.returncode, refused.stderr) == (2, "usage: node partition_of.js NUM_PARTITIONS [USER_ID ...]\n")


def test_a_subscriber_drops_repeats_and_what_is_older() -> None:
    newest = runpy.run_path(str(EXAMPLES / "subscribe_to_intents.py"))["NewestOffsets"]()

    def is_new(user_id: str, offset: int, partition: int = 0) -> bool:
        source = {"topic": "plays", "partition": partition, "offset": offset}
        return newest.is_new({"user_id": user_id, "source": source})

    assert [is_new("ann", offset) for offset in (0, 4, 4, 2, 5, 5)] == [True, True, False, False, True, False]
    assert is_new("ben", 1)
    assert is_new("ann", 0, partition=1)


def partitions_of(broker: Broker, topic: str, num_partitions: int) -> dict[str, set[int]]:
    """The partitions where the records of each key are."""
    consumer = Consumer({"bootstrap.servers": broker.address, "group.id": "none", "enable.partition.eof": True})
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in range(num_partitions)])
    found, ended = dict[str, set[int]](), 0
    while ended < num_partitions:
        record = consumer.poll(10)
        assert record is not None
        if record.error():
            assert record.error().code() == KafkaError._PARTITION_EOF
            ended += 1
        else:
            found.setdefault(record.key().decode(), set()).add(record.partition())
    consumer.close()
    return found


def expect_kafkas_partitions(rig: Rig, plays: Sequence[dict[str, Any]]) -> None:
    num = rig.settings.num_partitions
    wanted = {play["user_id"]: {(murmur2(play["user_id"].encode()) & 0x7FFFFFFF) % num} for play in plays}
    assert partitions_of(rig.broker, rig.settings.plays_topic, num) == wanted


def lines_of(plays: Sequence[dict[str, Any]]) -> str:
    return "\n".join(map(json.dumps, plays)) + "\n"


def test_aiokafka_sends_to_kafkas_partition_and_follows_lists(
    embedded_broker: Broker, make_rig: RigMaker, tmp_path: Path
) -> None:
    rig = make_rig(embedded_broker)
    plays = list(rig.plays(40, num_users=20))
    place = ("--broker", embedded_broker.address, "--topic")
    sent = run_soundly("send_with_aiokafka.py", *place, rig.settings.plays_topic, cwd=tmp_path, given=lines_of(plays))
    assert sent == ["40 plays sent"]
    expect_kafkas_partitions(rig, plays)
    topic = rig.settings.recommendations_topic
    producer = Producer({"bootstrap.servers": embedded_broker.address})
    for offset in (0, 1, 1, 0, 2):
        source = {"topic": "plays", "partition": 0, "offset": offset}
        message = {"user_id": "ann", "source": source, "items": [{"title": f"Film {offset}"}] if offset else []}
        producer.produce(topic, key=b"ann", value=json.dumps(message), partition=0)
    assert producer.flush(30) == 0
    shown = run_soundly("subscribe_with_aiokafka.py", *place, topic, "--from-beginning", cwd=tmp_path)
    assert shown == ["ann: nothing that the filters admit", "ann: Film 1", "ann: Film 2"]


@pytest.fixture(scope="session")
def kafkajs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with KafkaJS, from the package registry."""
    folder = tmp_path_factory.mktemp("kafkajs")
    if shutil.which("npm") is None:
        pytest.skip("needs npm on the PATH")
    done = subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), "kafkajs@2"],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"npm cannot install kafkajs: {done.stderr.strip().splitlines()[-1:]}")
    return folder / "node_modules"


@pytest.mark.kafka
def test_kafkajs_sends_to_kafkas_partition_and_follows_intents(
    kafka_broker: Broker, make_rig: RigMaker, kafkajs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NODE_PATH", str(kafkajs))
    rig = make_rig(kafka_broker)
    plays = list(rig.plays(40, num_users=20))
    where = (kafka_broker.address, rig.settings.plays_topic)
    assert run_soundly("kafkajs_client.js", "send", *where, cwd=tmp_path, given=lines_of(plays)) == ["40 plays sent"]
    expect_kafkas_partitions(rig, plays)
    producer = Producer({"bootstrap.servers": kafka_broker.address})
    for offset in (3, 4, 4, 2, 5):
        source = {"topic": "plays", "partition": 0, "offset": offset}
        primary = {"head": "genre", "label": f"label {offset}"} if offset > 3 else None
        update = {"user_id": "ann", "source": source, "primary": primary}
        producer.produce(rig.settings.intents_topic, key=b"ann", value=json.dumps(update), partition=0)
    assert producer.flush(30) == 0
    command = ["node", str(EXAMPLES / "kafkajs_client.js"), "follow", kafka_broker.address, rig.settings.intents_topic]
    with subprocess.Popen([*command, f"{rig.settings.app_id}-js"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        shown = [process.stdout.readline().strip() for _ in range(3)]
        process.terminate()
        rest = process.stdout.read()
    assert (shown, rest) == (["ann: nothing known", "ann: genre = label 4", "ann: genre = label 5"], "")


@pytest.mark.kafka
@pytest.mark.skipif(shutil.which("kcat") is None, reason="needs kcat on the PATH")
def test_the_lines_for_kcat_send_to_kafkas_partition_and_read(
    kafka_broker: Broker, make_rig: RigMaker, tmp_path: Path
) -> None:
    text = (EXAMPLES / "README.md").read_text()
    (send,) = re.findall(r"^ +(kcat -P .+)$", text, re.M)
    (read,) = re.findall(r"^ +(kcat -C .+)$", text, re.M)
    rig = make_rig(kafka_broker)
    plays, plays_topic = list(rig.plays(40, num_users=20)), rig.settings.plays_topic

    def kcat(line: str, topic: str, given: str = "") -> str:
        line = line.replace("127.0.0.1:9092", kafka_broker.address).replace("plays", topic, 1)
        words = shlex.split(line.replace("recommendations", topic))
        done = subprocess.run(words, input=given, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    kcat(send, plays_topic, "".join(f"{play['user_id']}|{json.dumps(play)}\n" for play in plays))
    expect_kafkas_partitions(rig, plays)
    shown = [line.partition(" ") for line in kcat(read, plays_topic).splitlines()]
    assert sorted((key, json.loads(value)["event_id"]) for key, _, value in shown) == sorted(
        (play["user_id"], play["event_id"]) for play in plays
    )


@pytest.mark.timeout(240)
def test_plays_are_sent_answered_and_each_answer_is_shown_once(
    embedded_broker: Broker, make_serving_rig: ServingRigMaker, world: TinyWorld, tmp_path: Path
) -> None:
    rig, _ = make_serving_rig(embedded_broker)
    bundle = make_bundle(tmp_path / "store", world, world.model(3))  # one whose primary intents change with the plays
    plays = list(world_plays(rig, 60))
    place = ("--broker", embedded_broker.address, "--topic")
    sent = run_soundly(
        "send_plays.py", *place, rig.settings.plays_topic, cwd=tmp_path, given="\n".join(map(json.dumps, plays))
    )
    assert sent == ["60 plays sent, 0 refused, 0 not acknowledged"]
    announce_bundle(rig, bundle)
    worker = start_serving(rig)
    rig.wait_for_answers(60)
    assert worker.terminate() == 0, worker.log()[-2000:]
    assert not rig.outputs(rig.settings.dead_letter_topic), "each play is in its member's partition"

    # A worker that is killed publishes its last answers once more.
    intents = rig.outputs(rig.settings.intents_topic)
    producer = Producer({"bootstrap.servers": embedded_broker.address, "partitioner": "murmur2_random"})
    for repeat in intents[-10:]:
        producer.produce(rig.settings.intents_topic, key=repeat.key, value=repeat.value)
    assert producer.flush(30) == 0
    subscribe = (*place, rig.settings.intents_topic, "--group", f"{rig.settings.app_id}-ui", "--from-beginning")
    shown = run_soundly("subscribe_to_intents.py", *subscribe, cwd=tmp_path)
    assert len(shown) == len(intents) == 60
    assert {line.split(":")[0] for line in shown} == {play["user_id"] for play in plays}
    again = run_soundly("subscribe_to_intents.py", *subscribe, cwd=tmp_path)
    assert sorted(again) == sorted(shown), "the second time as the first, in another order of partitions"
    shifted = sum(decode_intent(intent.value).shifted for intent in intents)
    assert sum(line.endswith("<- changed") for line in shown) == shifted > 0
