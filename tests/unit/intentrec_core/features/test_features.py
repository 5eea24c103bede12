"""Features of plays, against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from intentrec_core.features.context_batch import collate
from intentrec_core.history.history import History
from tests.worlds.tiny_world import TinyWorld


def column(world: TinyWorld, name: str) -> int:
    return [field.name for field in world.domain.dynamic_fields].index(name)


@pytest.fixture
def events(world: TinyWorld) -> bytes:
    history = History()
    plays = [(0, 0.0, 30.0), (1, 30.0, None), (0, 90.0, 600.0), (99, 7290.0, 5.0)]
    for i, (item, at_s, duration_s) in enumerate(plays):
        history.apply(world.layout, world.play(item, i, at_s, duration_s), i)
    return bytes(history.events)


def test_rules_and_event_fields(world: TinyWorld, events: bytes) -> None:
    columns = world.features.columns([events], [0])
    assert columns.item_row.tolist() == [1, 2, 1, 0]
    assert columns.codes[:, column(world, "action")].tolist() == [
        1,
        1,
        2,
        1,
    ]  # the third is the second contact of item 0
    assert columns.codes[:, column(world, "device")].tolist() == [1, 2, 1, 1]
    assert columns.codes[:, column(world, "length")].tolist() == [1, 0, 3, 1]  # missing; 600 s opens the last bucket
    assert columns.codes[:, column(world, "gap")].tolist() == [0, 1, 2, 3]
    assert columns.codes[:, column(world, "age")].tolist() == [1, 1, 1, 0]  # released now, 20 days ago; unknown item
    assert columns.codes[:, column(world, "hour")].tolist() == [
        23,
        23,
        23,
        1,
    ]  # 2023-11-14 22:13 UTC, then past midnight
    assert columns.codes[:, column(world, "weekday")].tolist() == [2, 2, 2, 3]  # Tuesday, Wednesday
    assert columns.gap_s.tolist() == [-1.0, 30.0, 60.0, 7200.0]


def test_an_undeclared_value_is_missing(world: TinyWorld) -> None:
    history = History()
    history.apply(world.layout, world.play(2, 0, 0.0), 0)  # its device is a fridge
    assert world.features.columns([bytes(history.events)], [0]).codes[0, column(world, "device")] == 0


@pytest.mark.parametrize("start", [0, 1, 2, 3])
def test_features_of_new_plays_are_those_of_the_whole_context(world: TinyWorld, events: bytes, start: int) -> None:
    whole = world.features.columns([events], [0])
    part = world.features.columns([events, events], [start, 3])
    for name in ("item_row", "codes", "ts_s", "gap_s", "weight"):
        np.testing.assert_array_equal(getattr(part, name)[:-1], getattr(whole, name)[start:])
        np.testing.assert_array_equal(getattr(part, name)[-1:], getattr(whole, name)[3:])


def test_collate_pads_behind(world: TinyWorld, events: bytes) -> None:
    batch = collate(world.features.columns([events, events], [0, 2]))
    assert batch.item_row.tolist() == [[1, 2, 1, 0], [1, 0, 0, 0]]
    assert batch.lengths.tolist() == [4, 2]
    assert batch.starts.tolist() == [0, 2]
    assert batch.ts_s[1].tolist()[1:] == [batch.ts_s[1, 1].item()] * 3


def test_duration_weight_is_clipped_log(world: TinyWorld) -> None:
    weights = world.features.weights(np.array([-1.0, 0.0, 600.0, 1e9], dtype=np.float32))
    np.testing.assert_allclose(weights, [1.0, 0.2, np.log(2), 3.0], rtol=1e-6)
