"""The chain beside the model learns each transition once, whatever happens to members and partitions."""

from __future__ import annotations

import numpy as np
import pytest

from intentrec_core.baselines.online_markov import OnlineMarkov
from intentrec_core.baselines.popularity import PopularWindow
from intentrec_core.history.history import History, Outcome
from intentrec_core.kernels import transitions
from stream.bundles.serving import Serving
from stream.pipeline.batch_rows import lay_out
from stream.pipeline.folding import Folder
from stream.pipeline.live_quality import markov_reference
from stream.pipeline.live_quality.markov_reference import MarkovReference
from tests.worlds.bundle_world import PlayLog, Record, make_serving
from tests.worlds.tiny_world import TinyWorld


@pytest.fixture(scope="module")
def serving(world: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> Serving:
    return make_serving(tmp_path_factory.mktemp("bundles"), world, world.model(1))


def learn(reference: MarkovReference, serving: Serving, histories: dict[str, History], records: list[Record]) -> None:
    """Folds the plays as one micro-batch, and shows them to the reference."""
    folder = Folder(serving.features.layout, None)
    work = folder.fold(0, histories, records)
    batch = lay_out(folder.batch().waves, serving.features.layout, serving.vocabulary)
    (rows,) = batch.of([work.answers])
    pairs = zip(work.answers, rows, strict=True)
    appended = np.array([row for answer, row in pairs if answer.outcome is Outcome.APPENDED], dtype=np.int64)
    reference.learn(batch, appended, reference.last_rows(batch, appended, serving), serving)


def test_each_transition_is_learned_once_however_often_members_come_back(serving: Serving) -> None:
    reference, histories, log = MarkovReference(len(serving.vocabulary)), dict[str, History](), PlayLog()
    for i in range(6):
        learn(reference, serving, histories, [log.play(user, i, 100.0 * i) for user in ("ann", "ben")])
    assert reference.num_transitions == 2 * 5
    # The partition moves away and comes back: its members' predictions are gone, and the chain knows their plays.
    for user in ("ann", "ben"):
        learn(reference, serving, histories, [log.play(user, 7, 1_000.0)])
    assert reference.num_transitions == 2 * 6


def test_the_whole_context_of_a_member_is_learned_when_it_is_met(serving: Serving) -> None:
    before, log = dict[str, History](), PlayLog()
    learn(MarkovReference(len(serving.vocabulary)), serving, before, [log.play("ann", i, 100.0 * i) for i in range(5)])
    restarted = MarkovReference(len(serving.vocabulary))
    learn(restarted, serving, before, [log.play("ann", 5, 500.0), log.play("ann", 6, 600.0)])
    assert restarted.num_transitions == 6


def test_once_the_chain_is_full_only_new_plays_are_learned(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(markov_reference, "OnlineMarkov", lambda rows: OnlineMarkov(rows, max_transitions=8))
    reference, histories, log = MarkovReference(len(serving.vocabulary)), dict[str, History](), PlayLog()
    learn(reference, serving, histories, [log.play("ann", i, 100.0 * i) for i in range(10)])
    assert reference.num_transitions == 9
    held, later = dict[str, History](), [log.play("ben", i, 100.0 * i) for i in range(6)]
    learn(MarkovReference(len(serving.vocabulary)), serving, held, later)
    learn(reference, serving, held, [log.play("ben", 6, 600.0)])
    assert reference.num_transitions == 10


def test_a_play_that_comes_late_adds_no_transition(serving: Serving) -> None:
    reference, histories, log = MarkovReference(len(serving.vocabulary)), dict[str, History](), PlayLog()
    learn(reference, serving, histories, [log.play("ann", i, 100.0 * i) for i in range(3)])
    learn(reference, serving, histories, [log.play("ann", 8, 150.0)])
    assert reference.num_transitions == 2


def test_all_batches_are_learned_by_the_code_that_was_compiled_before(serving: Serving) -> None:
    reference, histories, log = MarkovReference(len(serving.vocabulary)), dict[str, History](), PlayLog()
    reference.compile()
    learn(reference, serving, histories, [log.play(user, 1, 0.0) for user in ("ann", "ben")])
    learn(reference, serving, histories, [log.play(user, i, 100.0 * i) for user in ("ann", "ben") for i in (2, 3)])
    reference.hits(np.array([2, 3]), [np.array([1]), np.array([1, 2])], 3, PopularWindow(), [np.array([4])] * 2)
    assert len(transitions.add.signatures) == 1
    assert len(transitions.among_top.signatures) == 1
