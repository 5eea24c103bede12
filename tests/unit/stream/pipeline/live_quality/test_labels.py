"""The observed labels of a play for each intent head: read from the play if possible, else from its features."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from intentrec_core.engine.member_key import MemberKey
from intentrec_core.features.features import needs_plays_before
from intentrec_core.kernels.judged import mark_labels
from stream.bundles.serving import Serving
from stream.pipeline.batch_rows import BatchRows, lay_out
from stream.pipeline.folding import ContextRun
from stream.pipeline.live_quality import labels as observed_labels
from stream.pipeline.live_quality.labels import ObservedLabels
from tests.worlds.bundle_world import make_serving
from tests.worlds.tiny_world import TinyWorld

ITEMS, DURATIONS_S = [3, 8, 3, 20, 99], [20.0, None, 90.0, 900.0, 20.0]


@pytest.fixture(scope="module")
def serving(world: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> Serving:
    return make_serving(tmp_path_factory.mktemp("bundles"), world, world.model(1))


def batch_of(world: TinyWorld, serving: Serving) -> BatchRows:
    """Two members: five plays of one, answered from the second on; two of another, both answered."""
    plays = [
        world.play(item, i, 100.0 * i, duration_s).data
        for i, (item, duration_s) in enumerate(zip(ITEMS, DURATIONS_S, strict=True))
    ]
    runs = [
        ContextRun(MemberKey(0, "one"), 0, b"".join(plays), 0, 4, b"", 0),
        ContextRun(MemberKey(0, "two"), 0, b"".join(plays[3:]), 0, 2, b"", 0),
    ]
    return lay_out([runs], world.layout, serving.vocabulary)


def labels_by_head(batch: BatchRows, rows: np.ndarray, serving: Serving) -> dict[str, np.ndarray]:
    heads = serving.domain.heads
    parts = np.split(ObservedLabels(serving).of(batch, rows), serving.domain.label_offsets[1:], axis=1)
    return {head.name: part for head, part in zip(heads, parts, strict=True)}


def test_the_observed_labels_of_each_head_are_those_of_the_play(world: TinyWorld, serving: Serving) -> None:
    rows = np.array([0, 1, 2, 3, 5])  # items 8, 3 again, 20, an unknown one; the unknown one of the other member
    found = labels_by_head(batch_of(world, serving), rows, serving)
    discovered = [[True, False], [False, True], [True, False], [True, False], [True, False]]
    assert found["action"].tolist() == discovered, "the third play is of the first one's item"
    short, middle, long, unknown = [True, False, False], [False, True, False], [False, False, True], [False] * 3
    assert found["length"].tolist() == [unknown, middle, long, short, short]
    recent, old = [False, True, False], [False, False, True]
    assert found["age"].tolist() == [recent, recent, old, [False] * 3, [False] * 3], "20 days an item"
    assert found["genre"].tolist() == [
        [True, False, False],  # item 8: 9 is 0b1001
        [False, False, True],  # item 3: 4
        [True, False, True],  # item 20: 21
        [False] * 3,
        [False] * 3,
    ]


def test_labels_of_heads_without_earlier_plays_are_read_from_the_play_and_are_the_same(
    world: TinyWorld, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = tuple(replace(f, intent=f.intent and not needs_plays_before(f)) for f in serving.domain.fields)
    of_events = replace(serving, tables=replace(serving.tables, domain=replace(serving.domain, fields=fields)))
    names = [head.name for head in of_events.domain.heads]
    assert names == ["length", "genre", "age"]
    batch, rows = batch_of(world, serving), np.arange(6)
    expected = labels_by_head(batch, rows, serving)
    monkeypatch.delattr(observed_labels, "_dynamic_codes")
    for name, found in labels_by_head(batch, rows, of_events).items():
        np.testing.assert_array_equal(found, expected[name])


def test_a_code_that_stands_for_no_label_of_its_head_marks_none() -> None:
    observed = np.zeros((1, 5), dtype=np.bool_)
    mark_labels(np.array([[3, 0, 2]]), np.array([[0, 2], [2, 3], [3, 5]]), observed)
    assert observed.tolist() == [[False, False, False, False, True]]
