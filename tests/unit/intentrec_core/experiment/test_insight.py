"""What the report shows of a model is what the model computed: its intents and its attention."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from intentrec_core.domain.toml import load_domain
from intentrec_core.evaluation.attention_examples import MAX_PLAYS, RecordingAttend, attention_example
from intentrec_core.evaluation.protocols import Protocol, temporal
from intentrec_core.experiment.compared_rankers import Answered
from intentrec_core.experiment.data import ExperimentData
from intentrec_core.experiment.insight import MIN_PLAYS, NUM_EXAMPLES, intents_before, look_into
from intentrec_core.experiment.learner import Learned, answered
from intentrec_core.model.attention import FullAttend
from intentrec_core.model.config import ModelConfig
from intentrec_core.model.model import IntentRec
from intentrec_core.plays.batches import WindowBatches
from intentrec_core.plays.windows import windows_of
from tests.bench.quality.data_sets import world_plays


@pytest.fixture(scope="module")
def data() -> ExperimentData:
    plays, catalogue = world_plays(700, 25, 80)
    return ExperimentData.of("world", load_domain("video"), plays, catalogue)


@pytest.fixture(scope="module")
def protocol(data: ExperimentData) -> Protocol:
    return temporal(data.asked, test_ratio=0.3)


@pytest.fixture(scope="module")
def model(data: ExperimentData) -> IntentRec:
    torch.manual_seed(0)
    return IntentRec(ModelConfig(width=16, num_heads=2, intent_width=4), data.domain, data.table).eval()


def test_the_attention_that_is_shown_is_the_one_that_was_used() -> None:
    """Its mixture of the values is what :class:`FullAttend` gives."""
    torch.manual_seed(1)
    ts_s = torch.sort(torch.rand(2, 7, dtype=torch.float64) * 1e5).values
    q, k, v = (torch.randn(2, 7, 3, 4) for _ in range(3))
    slopes = torch.randn(2, 3)
    for layer in (0, 2):
        recorded = RecordingAttend(ts_s, 3600.0)
        out = recorded(layer, q, k, v, slopes)
        torch.testing.assert_close(out, FullAttend(ts_s, 3600.0)(layer, q, k, v, slopes))
        probability = recorded.probabilities[layer]
        torch.testing.assert_close(torch.einsum("bhts,bshd->bthd", probability, v), out)
        assert float(torch.triu(probability, diagonal=1).max()) == 0.0, "no play looks at a later one"


def test_an_intent_is_the_one_before_its_target(data: ExperimentData, protocol: Protocol, model: IntentRec) -> None:
    """Each is computed anew from the target's own context, which ends with the play before it."""
    task = protocol.test
    which = np.arange(3, len(task), 17)
    found = intents_before(model, data.asked.features, task, which)
    for place, target in enumerate(which.tolist()):
        windows = windows_of(data.asked.members, task.targets.play[[target]])
        batch = next(WindowBatches(data.asked.features, data.asked.members, windows).ordered(1))
        with torch.no_grad():
            alone = model(batch.context).intent_BTP[0, -2].numpy()
        np.testing.assert_allclose(found[place], alone, atol=1e-5)


def test_an_example_shows_a_members_own_plays_newest_first(
    data: ExperimentData, protocol: Protocol, model: IntentRec
) -> None:
    members = data.asked.members
    play = int(max(protocol.test.targets.play, key=lambda p: p - members.bounds[members.member[p]]))
    found = attention_example(
        model,
        data.asked.features,
        members,
        play,
        titles=data.table.titles,
        cluster="any",
        listed=np.array([5, 0]),
        rank=float("inf"),
    )
    begin = int(members.bounds[members.member[play]])
    titles = [data.table.titles[row] for row in data.asked.row[begin:play]][::-1]
    assert play - begin > MAX_PLAYS, "a member with older plays"
    assert [one.title for one in found.plays] == titles[:MAX_PLAYS]
    assert found.older[0] == play - begin - MAX_PLAYS
    assert sum(one.attention for one in found.plays) + found.older[1] == pytest.approx(1.0, abs=1e-5)
    assert found.next_title == data.table.titles[data.asked.row[play]]
    assert found.listed == (data.table.titles[5],)
    assert found.rank is None
    assert sum(intent.weight for intent in found.intents) == pytest.approx(1.0, abs=1e-5)
    assert found.plays[0].seconds_before == 0.0
    assert [one.seconds_before for one in found.plays] == sorted(one.seconds_before for one in found.plays)


def test_examples_are_typical_plays_of_different_members(
    data: ExperimentData, protocol: Protocol, model: IntentRec
) -> None:
    learned = Learned(model, data.vocabulary)
    found = look_into(data, protocol.test, Answered(answered(learned, data, protocol.test), learned=learned))
    assert found.intents is not None
    assert len({one.user_id for one in found.examples}) == NUM_EXAMPLES
    assert [one.cluster for one in found.examples] == [
        cluster.name for cluster in found.intents.clusters[:NUM_EXAMPLES]
    ]
    assert all(len(one.plays) + one.older[0] >= MIN_PLAYS for one in found.examples)


def test_a_model_without_intents_has_no_map(data: ExperimentData, protocol: Protocol) -> None:
    torch.manual_seed(0)
    plain = IntentRec(ModelConfig(width=16, intent_stage=False, intent_score=False), data.domain, data.table)
    learned = Learned(plain, data.vocabulary)
    found = look_into(data, protocol.test, Answered(answered(learned, data, protocol.test), learned=learned))
    assert (found.intents, found.examples) == (None, ())
