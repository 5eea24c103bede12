"""The rows of a micro-batch, numbered by compiled code."""

from __future__ import annotations

import numpy as np
import pytest

from intentrec_core.kernels import context_rows, hash_rows, judged, play_features
from stream.bundles.serving import Serving
from tests.worlds.bundle_world import PlayLog, make_pipeline, make_serving
from tests.worlds.pipeline_results import run
from tests.worlds.tiny_world import TinyWorld


@pytest.fixture(scope="module")
def serving(world: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> Serving:
    return make_serving(tmp_path_factory.mktemp("bundles"), world, world.model(1))


def test_the_rows_of_a_context_are_its_last_plays() -> None:
    starts, rows = context_rows.number_rows(np.array([3, 1, 4]), np.array([2, 1, 0]))
    assert starts.tolist() == [[0, 3, 4], [0, 2, 3]]
    assert rows.tolist() == [[0, 0, 1], [0, 1, 0], [1, 2, 3]]


def test_a_new_play_has_the_slot_of_its_context_and_the_place_after_the_plays_there() -> None:
    found = context_rows.spread(np.array([7, 3, 5]), np.array([0, 4, 9]), np.array([2, 0, 3]))
    assert found.tolist() == [[7, 7, 5, 5, 5], [0, 1, 9, 10, 11]]


def test_no_code_is_compiled_while_plays_are_answered(serving: Serving) -> None:
    pipeline, log = make_pipeline(serving), PlayLog()
    kernels = (
        context_rows.number_rows,
        context_rows.find_sessions,
        judged.add_judged,
        judged.add_labels,
        judged.commonest_labels,
        judged.mark_labels,
        context_rows.spread,
        hash_rows.find_rows,
        play_features.play_features,
    )
    before = [len(kernel.signatures) for kernel in kernels]
    run(pipeline, [log.play("ann", 1, 0)])  # one play in all: the column of its times is contiguous
    run(pipeline, [log.play("ann", 2, 100.0)])
    run(pipeline, [log.play(user, item, 200.0 + item) for user in ("ann", "ben") for item in (3, 4)])
    run(pipeline, [log.play("ben", 5, 150.0)])
    assert [len(kernel.signatures) for kernel in kernels] == before == [1] * len(kernels)
