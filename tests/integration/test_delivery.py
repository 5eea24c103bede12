"""Without faults, every play is answered and folded in once, on both brokers."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from itertools import cycle

import pytest

from stream.local_kafka.broker import Broker
from tests.faults.load import START_WITHIN_S, GroupView, holds_partitions, serving
from tests.rigs.broker_fixtures import RigMaker
from tests.rigs.rig import NUM_PARTITIONS
from tests.rigs.serving_rig import counted, until, wait_ready
from tests.rigs.verdict import read_all
from tests.worlds.counting import SLOW_SAID
from tests.worlds.naive_fold import partition_of

pytestmark = pytest.mark.timeout(300)


def test_every_play_is_answered_once_and_folded_in(broker: Broker, make_rig: RigMaker) -> None:
    rig = make_rig(broker)
    worker = rig.start_worker()
    rig.produce(rig.plays(1500))
    rig.wait_for_answers(1500)
    assert worker.terminate() == 0
    assert set(rig.answers().values()) == {1}
    assert rig.state() == rig.oracle()


def test_a_restarted_worker_goes_on_where_the_last_one_ended(broker: Broker, make_rig: RigMaker) -> None:
    rig = make_rig(broker)
    first = rig.start_worker()
    rig.produce(rig.plays(600))
    rig.wait_for_answers(600)
    assert first.terminate() == 0
    rig.produce(rig.plays(600))
    second = rig.start_worker()
    rig.wait_for_answers(1200)
    assert second.terminate() == 0
    assert set(rig.answers().values()) == {1}, "an orderly end replays nothing"
    counts = [json.loads(o.value)["count"] for o in rig.outputs(rig.settings.intents_topic) if o.key == b"u7"]
    assert counts == list(range(1, 31)), "the second worker counts on from the first one's state"
    assert rig.state() == rig.oracle()


def test_a_worker_that_was_caught_up_starts_again_with_nothing_new(broker: Broker, make_rig: RigMaker) -> None:
    rig = make_rig(broker)
    first = rig.start_worker()
    rig.produce(rig.plays(600))
    rig.wait_for_answers(600)
    assert first.terminate() == 0
    second = rig.start_worker()
    rig.produce(rig.plays(100))
    rig.wait_for_answers(700)
    assert second.terminate() == 0
    assert set(rig.answers().values()) == {1}
    assert rig.state() == rig.oracle()


@pytest.mark.kafka
def test_a_worker_that_catches_up_shares_its_time_among_the_partitions(
    kafka_broker: Broker, make_rig: RigMaker
) -> None:
    """Two fetches may be of the partition that was ready first. From then on no partition waits for another one's end.

    A member has at most 2n plays, so that none is late, in whatever order the broker takes them.
    """
    num, first_fetches = 5000, 4096
    rig = make_rig(kafka_broker)
    homes: dict[int, list[str]] = {partition: [] for partition in range(NUM_PARTITIONS)}
    for user in map(str, range(400)):
        homes[partition_of(user.encode(), NUM_PARTITIONS)].append(user)
    for users in homes.values():
        plays = zip(rig.plays(num, item="slow:0.0001:"), cycle(users[:40]), strict=False)
        rig.produce(play | {"user_id": user} for play, user in plays)
    worker = rig.start_worker()
    rig.wait_for_answers(num * NUM_PARTITIONS)
    assert worker.terminate() == 0
    records = sorted(read_all(rig.settings, rig.settings.intents_topic), key=lambda record: record.timestamp)
    answered = [record.partition for record in records]
    caught_up = min(len(answered) - answered[::-1].index(partition) for partition in homes)
    shared = Counter(answered[first_fetches:caught_up])
    assert all(shared[partition] > shared.total() / (2 * NUM_PARTITIONS) for partition in homes), shared


def test_sigterm_under_load_drains_and_replays_nothing(broker: Broker, make_rig: RigMaker) -> None:
    rig = make_rig(broker)
    worker = rig.start_worker()
    rig.produce(rig.plays(200))
    rig.wait_for_answers(200)
    rig.produce(rig.plays(1, item="slow:5:"))
    until(lambda: SLOW_SAID in worker.log(), 60, worker)
    rig.produce(rig.plays(20_000))
    started_s = time.monotonic()
    assert worker.terminate() == 0
    assert time.monotonic() - started_s < 30
    with GroupView(rig.settings) as group:
        assert group.lag() > 0, "it ended under load"
    second = rig.start_worker()
    rig.wait_for_answers(20_201, 120)
    wait_ready(second)
    assert second.terminate() == 0
    assert set(rig.answers().values()) == {1}


def test_two_workers_share_the_partitions_and_survive_a_kill(broker: Broker, make_rig: RigMaker) -> None:
    rig = make_rig(broker)
    victim, survivor = rig.start_worker(), rig.start_worker()
    until(lambda: holds_partitions(victim) and serving([victim, survivor], NUM_PARTITIONS), START_WITHIN_S, victim)
    rig.produce(rig.plays(2000), rate=800)
    victim.send(signal.SIGKILL)
    rig.produce(rig.plays(2000), rate=800)
    rig.wait_for_answers(4000, 90)
    assert survivor.terminate() == 0
    assert len(rig.answers()) == 2 * 4000, "lost 0"
    assert rig.state() == rig.oracle(), "nothing twice"


def test_poison_becomes_dead_letters_and_neighbours_are_untouched(broker: Broker, make_rig: RigMaker) -> None:
    rig = make_rig(broker)
    worker = rig.start_worker()
    rig.produce(rig.plays(50))
    poison = [
        (b"u1", b"{", "malformed"),
        (b"u1", None, "empty"),
        (b"u1", b'{"event_id": "x", "user_id": "u1", "item_id": "i", "ts": 1e400}', "out_of_range"),
        (b"u1", b"\xff\xfe", "malformed"),
        (b"u2", b'{"event_id": "x", "user_id": "u1", "item_id": "i", "ts": 1700000000000}', "key_mismatch"),
        (b"u3", b'{"schema_version": 9}', "unknown_schema"),
    ]
    for key, value, _ in poison:
        rig.send(key, value)
    rig.send(b"u4", b"x" * 3_000_000)
    rig.produce(rig.plays(50))
    rig.wait_for_answers(100)
    assert worker.terminate() == 0
    assert set(rig.answers().values()) == {1}
    assert rig.state() == rig.oracle()
    letters = rig.outputs(rig.settings.dead_letter_topic)
    assert len(letters) == len(poison) + 1
    found = {(letter.key, letter.value): letter for letter in letters}
    for key, value, reason in poison:
        letter = found[key, value or b""]
        assert letter.headers["intentrec-error"].decode() == reason
        assert letter.headers["intentrec-topic"].decode() == rig.settings.plays_topic
        assert int(letter.headers["intentrec-offset"]) >= 0
    oversized = found[b"u4", b"x" * 65536]
    assert oversized.headers["intentrec-length"] == b"3000000"


@pytest.mark.kafka
def test_a_stopped_worker_that_returns_is_fenced_and_ends(kafka_broker: Broker, make_rig: RigMaker) -> None:
    rig = make_rig(kafka_broker)
    zombie = rig.start_worker()
    rig.produce(rig.plays(400))
    rig.wait_for_answers(400)
    successor = rig.start_worker()
    until(
        lambda: holds_partitions(successor) and serving([zombie, successor], NUM_PARTITIONS), START_WITHIN_S, successor
    )
    rig.produce(rig.plays(1200))
    zombie.send(signal.SIGSTOP)
    rig.produce(rig.plays(1500), rate=500)
    until(lambda: counted(successor, "partitions_ready") == NUM_PARTITIONS, 90, successor)  # past the session timeout
    rig.wait_for_answers(3100, 90)
    zombie.send(signal.SIGCONT)
    rig.produce(rig.plays(500), rate=200)
    rig.wait_for_answers(3600, 90)
    until(lambda: zombie.process.poll() is not None or holds_partitions(zombie), 60, successor)
    code = zombie.process.poll()
    successor.terminate()
    assert len(rig.answers()) == 2 * 3600
    assert rig.state() == rig.oracle()
    assert code in (None, 6), zombie.log()[-3000:]
