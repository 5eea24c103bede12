"""Every example runs as a user would run it: the library alone, and next to a real worker on a broker."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from aiokafka.partitioner import murmur2
from confluent_kafka import Producer

from stream.local_kafka.broker import Broker
from stream.wire.codec import decode_intent
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
