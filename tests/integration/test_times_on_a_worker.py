"""Times in every unit and nulls in every place, from files and from producers, on a real worker."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from intentrec_core.features.catalogue import Catalogue, Item
from stream.local_kafka.broker import Broker
from tests.rigs.broker_fixtures import RigMaker
from tests.rigs.command_line import Commands, commands_with
from tests.rigs.rig import Rig
from tests.rigs.verdict import judge, read_all

pytestmark = pytest.mark.timeout(240)

NOW_MS = 1_772_396_100_000

TAKEN: list[dict[str, Any]] = [
    {"ts": NOW_MS},
    {"ts": str(NOW_MS)},
    {"ts": "2026-03-01t20:15:00.000z"},
    {"ts": "2026-02-28T24:00"},
    {"ts": "2016-12-31T23:59:60Z"},
    {"context": {"device": None, "rating": None}, "action": None, "duration_s": None, "schema_version": None},
    {"ts": 631_152_000_000},
]
#: What a producer may send, and what the dead letter says of it.
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"ts": NOW_MS // 1000}, "out_of_range", "in milliseconds 1970-01-21T12:19:56.100Z; allowed: 1990-01-01 up to"),
    ({"ts": str(NOW_MS // 1000)}, "out_of_range", "it would fit in seconds (s)"),
    ({"ts": NOW_MS * 10**3}, "out_of_range", "it would fit in microseconds (µs)"),
    ({"ts": NOW_MS * 10**6}, "out_of_range", "it would fit in nanoseconds (ns)"),
    ({"ts": NOW_MS / 1000}, "out_of_range", "it would fit in seconds (s)"),
    ({"ts": NOW_MS / 1000 + 0.5}, "invalid_field", "it would fit in seconds (s)"),
    ({"ts": "2016-12-31T22:59:60Z"}, "invalid_field", "in a leap second only"),
    ({"ts": 4_102_444_799_999}, "future", "s ahead of the record"),
    ({"context": {"rating": "4", "genres": ["Drama"]}}, "invalid_field", "context['genres']: Expected"),
]


@pytest.fixture
def rig(broker: Broker, make_rig: RigMaker) -> Rig:
    return make_rig(broker)


@pytest.fixture
def run(rig: Rig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Commands:
    return commands_with(rig.settings, monkeypatch, capsys, columns=80)


def write_plays(folder: Path, times: pa.Array) -> str:
    """Plays of one member, each with a context of which an entry is null."""
    folder.mkdir()
    names = [f"e{number}" for number in range(len(times))]
    contexts = pa.array([[("device", None), ("rating", "4")]] * len(times), pa.map_(pa.string(), pa.string()))
    columns = {
        "event_id": names,
        "user_id": ["file"] * len(times),
        "item_id": names,
        "ts_ms": times,
        "context": contexts,
    }
    pq.write_table(pa.table(columns), folder / "plays.parquet")
    Catalogue([Item("e0", "First")]).save(folder / "items.parquet")
    return str(folder)


def test_a_worker_tells_units_apart_and_takes_null_for_missing(
    rig: Rig, run: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = pa.array([(NOW_MS + number) * 1000 for number in range(30)], pa.timestamp("us", "UTC"))
    assert run("replay", "--data", write_plays(tmp_path / "typed", typed))[0] == 0
    seconds = pa.array([NOW_MS // 1000 + number for number in range(30)])
    code, _, error = run("replay", "--data", write_plays(tmp_path / "seconds", seconds))
    assert code == 3
    assert re.search(r"plays\.parquet: .*row 0 and 29 more: .* it would fit in seconds \(s\)", error), error

    for number, fields in enumerate([*TAKEN, *(fields for fields, _, _ in REFUSED)]):
        play = {"event_id": f"p{number}", "user_id": "sent", "item_id": "i", "ts": NOW_MS} | fields
        rig.send(b"sent", json.dumps(play).encode())
    rig.flush()
    worker = rig.start_worker()
    rig.wait_for_answers(30 + len(TAKEN))
    rig.wait_for_outputs(len(REFUSED), rig.settings.dead_letter_topic)
    assert worker.terminate() == 0, worker.log()[-2000:]
    verdict = judge(rig.settings, rig.layout)
    assert verdict.holds, verdict
    assert {user: state.count for user, state in rig.state().items()} == {"file": 30, "sent": len(TAKEN)}

    letters = sorted(read_all(rig.settings, rig.settings.dead_letter_topic), key=lambda letter: letter.offset)
    headers = [dict(letter.headers) for letter in letters]
    found = [(said["intentrec-error"].decode(), said["intentrec-detail"].decode()) for said in headers]
    assert [reason for reason, _ in found] == [reason for _, reason, _ in REFUSED]
    for (_, detail), (_, _, expected) in zip(found, REFUSED, strict=True):
        assert expected in detail

    places = [f"{letter.partition}:{letter.offset}" for letter in letters]
    for name in ("PIPE", "FORCE_COLOR"):  # the second makes it a terminal, of 80 columns
        monkeypatch.setenv(name, "1")
        listed = re.sub(r"\x1b\[[\d;]*m", "", run("dlq", "list")[1])
        assert re.findall(r"(?m)^(\d+:\d+) ", listed) == places, listed
        assert run("dlq", "show", places[-1])[0] == 0
