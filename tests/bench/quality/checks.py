"""What is checked of every trained row when it is run: its cache gives what a batch gives, and its Z knows the hidden intent.

Both are asked of the model that answered the test, and change nothing of its ranks: so no kept run is void for them. A row that
was run before they were built has neither.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.module import register_module_forward_hook

from intentrec_core.engine.live import LiveEncoder
from intentrec_core.engine.live_play import LivePlay
from intentrec_core.evaluation.heads import HeadOutcomes
from intentrec_core.evaluation.model_ranks import BATCH_WINDOWS, ModelRanker
from intentrec_core.evaluation.protocols import Protocol
from intentrec_core.evaluation.targets import make_targets
from intentrec_core.features.features import FeatureBuilder
from intentrec_core.features.vocabulary import ItemTable, Vocabulary
from intentrec_core.model.attention import SelfAttention
from intentrec_core.model.model import IntentRec
from intentrec_core.plays.batches import WindowBatches
from intentrec_core.plays.members import MemberPlays
from intentrec_core.plays.table import PlayRow, play_rows
from intentrec_core.plays.windows import windows_of
from tests.bench.quality.data_sets import Loaded, Measured
from tests.bench.quality.oracle import HIDDEN_INTENT, SeenWorld
from tests.bench.quality.rows import Answers, Row

#: Members whose plays are given to the cache one by one: those with the most.
SAMPLED_MEMBERS = 8
#: What two ways to one score may differ by, of the spread of a list's scores: float32, summed in another order.
EQUAL = 1e-4
#: Plays that are encoded alone, of a model that has no cache.
SAMPLED_PLAYS = 48
#: The weight of the probe's squares, of inputs with mean 0 and variance 1.
PROBE_DECAY = 1e-3


def checked(row: Row) -> Row:
    """The row, which also says what was checked of its model."""

    def answer(measured: Measured, loaded: Loaded, protocol: Protocol, seed: int) -> Answers:
        with last_model() as seen:
            answers = row.answer(measured, loaded, protocol, seed)
        (model,) = seen
        note = f"{answers.note}; {incremental_line(model, loaded)}"
        probe = probed(model, measured, loaded, protocol)
        return dataclasses.replace(answers, note=note, heads=answers.heads | probe)

    return dataclasses.replace(row, answer=answer)


@contextlib.contextmanager
def last_model() -> Iterator[list[IntentRec]]:
    """Notes the model whose forward ran last: after a row has answered, the one that answered the test."""
    seen: list[IntentRec] = []

    def note(module: nn.Module, _inputs: object, _output: object) -> None:
        if isinstance(module, IntentRec):
            seen[:] = [module]

    hook = register_module_forward_hook(note)
    try:
        yield seen
    finally:
        hook.remove()


@dataclass(frozen=True, slots=True)
class _Served:
    """A network with the rows of a data set, as :class:`~intentrec_core.engine.live.LiveEncoder` takes it: without successors."""

    network: IntentRec
    features: FeatureBuilder
    vocabulary: Vocabulary
    item_table: ItemTable
    successors: None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """``largest``: between two scores of an item, divided by how far the scores of its list lie apart."""

    largest: float
    num_scores: int


def incremental_line(model: IntentRec, loaded: Loaded) -> str:
    """Whether scores through the cache are those of a batch, in words.

    Rows other than V3 are not served, so no step of the engine is theirs: of these, a context that ends at a play is compared
    with one that goes on.
    """
    if type(model) is IntentRec and isinstance(model.short_term, SelfAttention):
        one, other = "incremental", "batch"
        if model.count_gate is not None:
            one, model = "counts left out, incremental", _without_counts(model)
        found = through_the_cache(model, loaded)
    else:
        found, one, other = cut_short(model, loaded), "no cache; a context that ends", "one that goes on"
    is_equal = "=" if found.largest < EQUAL else "IS NOT"
    return f"{one} {is_equal} {other}: of {found.num_scores:,} scores the largest difference is {found.largest:.0e} of the spread"


def _without_counts(model: IntentRec) -> IntentRec:
    """A copy whose scores have no part of counts: no cache holds them, and a library that serves a member has none."""
    plain = copy.deepcopy(model)
    plain.config, plain.count_gate = dataclasses.replace(model.config, item_counts=False), None
    return plain


@torch.no_grad()
def through_the_cache(model: IntentRec, loaded: Loaded) -> Difference:
    """Plays of some members, one by one through the cache, and all of them as windows. Every item that filters admit is
    compared.
    """
    members = loaded.data.members
    live = LiveEncoder(_Served(model, loaded.data.features, loaded.vocabulary, loaded.table))
    chosen = _sampled(loaded)
    batch = dict(_batch_scores(model, loaded, chosen))
    found = Difference(0.0, 0)
    for member in np.unique(members.member[chosen]).tolist():
        places = np.arange(members.bounds[member], members.bounds[member + 1] - 1)
        for place, row in zip(places.tolist(), play_rows(loaded.plays.take(members.order[places])), strict=True):
            listed = live.play_many([_given(row, live)])[0].recommend(len(loaded.vocabulary), exclude_watched=False)
            rows = [loaded.vocabulary.row(item.item_id) for item in listed]
            found = _compared(found, np.array([item.score for item in listed]), batch[place + 1][rows])
    return found


@torch.no_grad()
def cut_short(model: IntentRec, loaded: Loaded) -> Difference:
    """Some plays, each with a context that ends there, and all of them as windows."""
    chosen = _sampled(loaded)
    batch = dict(_batch_scores(model, loaded, chosen))
    found = Difference(0.0, 0)
    for play in chosen[:: max(1, len(chosen) // SAMPLED_PLAYS)].tolist():
        ((_, alone),) = _batch_scores(model, loaded, np.array([play]))
        found = _compared(found, alone[1:], batch[play][1:])
    return found


def _compared(before: Difference, one: NDArray[np.floating], other: NDArray[np.floating]) -> Difference:
    if not len(one):
        return before
    share = float(np.abs(one - other).max()) / max(float(other.max() - other.min()), 1e-12)
    return Difference(max(before.largest, share), before.num_scores + len(one))


def _sampled(loaded: Loaded) -> NDArray[np.int64]:
    """Every play but the first of the members with the most."""
    bounds = loaded.data.members.bounds
    members = np.sort(np.argsort(-np.diff(bounds), kind="stable")[:SAMPLED_MEMBERS])
    return np.concatenate([np.arange(bounds[member] + 1, bounds[member + 1]) for member in members.tolist()])


def _given(row: PlayRow, live: LiveEncoder) -> LivePlay:
    attributes = {key: value for key, value in (row.context or {}).items() if key in live.attribute_keys}
    if row.action is not None and "action" in live.attribute_keys:
        attributes["action"] = row.action
    return LivePlay(
        user_id=row.user_id,
        item_id=row.item_id,
        ts_ms=row.ts_ms,
        event_id=row.event_id,
        duration_s=row.duration_s,
        attributes=attributes,
    )


def _batch_scores(
    model: IntentRec, loaded: Loaded, plays: NDArray[np.int64]
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Scores of all items at each play, from windows. Shape: f32[V] each."""
    data = loaded.data
    windows = windows_of(data.members, plays)
    targets = make_targets(data.members, windows, data.row, data.universe, filter_watched=False)
    for which, scores in ModelRanker(data.features, data.members, windows).scores(model, targets, {}):
        yield from zip(targets.play[which].tolist(), scores.numpy(), strict=True)


def probed(model: IntentRec, measured: Measured, loaded: Loaded, protocol: Protocol) -> dict[str, HeadOutcomes]:
    """What a linear probe on Z says of the hidden intent of each play of the test; nothing where there is no Z or no hidden
    intent, or where the model was refreshed with plays of the test.

    It is fitted on the plays that the model has learned, each with the Z before it.
    """
    test = protocol.test
    if measured.world is None or not model.config.intent_stage or len(np.unique(test.learned)) > 1:
        return {}
    seen = SeenWorld(measured, loaded)
    later = np.ones(len(loaded.data.place), dtype=np.bool_)
    later[loaded.data.members.bounds[:-1]] = False
    learned = np.flatnonzero(later & test.learnable & (loaded.data.place < int(test.learned.min())))
    z_learned, z_test = (z_before(model, loaded, plays) for plays in (learned, test.targets.play))
    if not z_test.shape[1]:
        return {}
    num_intents = len(seen.world.intents)
    probe = fitted(z_learned, seen.hidden[learned], num_intents)
    confidence, predicted = torch.softmax(probe(torch.from_numpy(z_test)), dim=-1).max(dim=-1)
    outcomes = HeadOutcomes.empty(len(test), num_intents)
    hidden = seen.hidden[test.targets.play]
    outcomes.predicted[:], outcomes.confidence[:] = predicted.numpy(), confidence.double().numpy()
    outcomes.observed[np.arange(len(test)), hidden] = True
    outcomes.repeated[:] = hidden == seen.hidden[test.targets.play - 1]
    return {HIDDEN_INTENT: outcomes}


@torch.no_grad()
def z_before(model: IntentRec, loaded: Loaded, plays: NDArray[np.int64]) -> NDArray[np.float32]:
    """Z as of the play before each of these, none a member's first. Shape: f32[N, P]."""
    members: MemberPlays = loaded.data.members
    windows = windows_of(members, plays)
    model.eval()
    place_of = np.full(len(members.member), -1)
    place_of[plays] = np.arange(len(plays))
    found = np.zeros((len(plays), model.config.intent_width), dtype=np.float32)
    for batch in WindowBatches(loaded.data.features, members, windows).ordered(BATCH_WINDOWS):
        z_BTP = model(batch.context).intent_BTP.numpy()
        if not z_BTP.shape[-1]:
            return np.zeros((len(plays), 0), dtype=np.float32)
        for row, window in enumerate(batch.windows.tolist()):
            first, start = int(windows.first_target[window]), int(windows.start[window])
            length = int(windows.stop[window]) - start
            found[place_of[start + first : start + length]] = z_BTP[row, first - 1 : length - 1]
    return found


def fitted(inputs: NDArray[np.float32], labels: NDArray[np.int64], num_labels: int) -> nn.Module:
    """A linear classifier, by maximum likelihood. Shapes: f32[N, P], i64[N]; it takes f32[any, P] and gives f32[any,
    num_labels].
    """
    x, y = torch.from_numpy(inputs), torch.from_numpy(labels)
    probe = _Probe(x.mean(dim=0), x.std(dim=0).clamp(min=1e-6), num_labels)
    optimizer = torch.optim.LBFGS(probe.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = functional.cross_entropy(probe(x), y) + PROBE_DECAY * probe.linear.weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[no-untyped-call]
    return probe.requires_grad_(requires_grad=False)


class _Probe(nn.Module):
    def __init__(self, mean: Tensor, spread: Tensor, num_labels: int) -> None:
        super().__init__()
        self._mean, self._spread = mean, spread
        self.linear = nn.Linear(len(mean), num_labels)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: f32[N, P] -> f32[N, L]."""
        return self.linear((x - self._mean) / self._spread)
