"""Live inference in one process, without a broker: plays in, intents and recommendations out.

    play ─ check ─ pack ─ fold into the member's history ─ incremental engine ─▶ LiveUpdate ─ recommend ─▶ scored items

It is what a worker does with a partition, for a notebook, a test or a service of one process: histories are held in memory
and offsets are counted here. What each play is answered with equals full recomputation of its context
(:mod:`intentrec_core.engine.reference`). This module knows no broker, no approximate index, no clock and no bundle.

Shapes: V item rows (row 0 no item), Q width of a query of the model, P width of the intent embedding Z.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from intentrec_core.device import CPU
from intentrec_core.domain.spec import Domain, Filter, FilterKind
from intentrec_core.engine.cuda.encoder import TorchEncoder
from intentrec_core.engine.engine import Encoded, EngineStats, IncrementalEngine
from intentrec_core.engine.kv_dtype import KvDtype
from intentrec_core.engine.live_play import NO_ATTRIBUTES, LiveOutcome, LivePlay, in_builtins, problems
from intentrec_core.engine.live_runs import LiveRuns, Place, live_key
from intentrec_core.engine.own_scores import OwnScorer, seen
from intentrec_core.engine.successor_scores import SuccessorScorer
from intentrec_core.errors import ConfigError, DataError
from intentrec_core.features.features import FeatureBuilder
from intentrec_core.features.vocabulary import ItemTable, Vocabulary
from intentrec_core.history.history import EventLayout, History, PackedPlay, default_value
from intentrec_core.model.intent_score import weighted_scores
from intentrec_core.model.model import IntentRec
from intentrec_core.model.weights import ModelWeights
from intentrec_core.plays.table import check_plays, play_rows
from intentrec_core.successors import Successors


class TrainedModel(Protocol):
    """What is needed of a model; :class:`intentrec_core.Model` is one."""

    @property
    def network(self) -> IntentRec:
        """The weights."""
        ...

    @property
    def features(self) -> FeatureBuilder:
        """Packed plays to inputs of the network."""
        ...

    @property
    def vocabulary(self) -> Vocabulary:
        """Items by row."""
        ...

    @property
    def item_table(self) -> ItemTable:
        """What the domain reads of the items."""
        ...

    @property
    def successors(self) -> Successors | None:
        """What usually follows each item, beside the trained score."""
        ...


class Primary(NamedTuple):
    """The likeliest label of the head that weighs most."""

    head: str
    label: str
    probability: float


class ScoredItem(NamedTuple):
    """One item of a list, best first. Scores are comparable within one list only."""

    item_id: str
    title: str
    score: float


@dataclass(frozen=True, slots=True)
class _Moment:
    """A member's history as of one play: the first ``num_plays`` of ``context``, and the items that left it before."""

    context: bytes
    num_plays: int
    evicted_items: bytes


class _Query(NamedTuple):
    """What the items are scored with: ``vector`` f32[Q], and ``seen`` f32[1, G] by the gate of own items, None without these."""

    vector: NDArray[np.float32]
    seen: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True, eq=False)
class LiveUpdate:
    """The member's intents after one play.

    ``intents``: by head, the probability of each label for the next play. ``weights``: by head, how much it matters now; they
    sum to 1. ``primary``: the likeliest label of the head that weighs most. ``embedding``: the intent embedding Z of the paper,
    f32[P], read-only. A model without the intent stage has none of them: they are empty, and ``primary`` is None.
    For a duplicate or late play: the values of the unchanged history.
    """

    user_id: str
    item_id: str
    ts_ms: int
    outcome: LiveOutcome
    intents: Mapping[str, Mapping[str, float]]
    weights: Mapping[str, float]
    primary: Primary | None
    embedding: NDArray[np.float32]
    _ranker: _Ranker = field(repr=False)
    _query: _Query = field(repr=False)
    _moment: _Moment = field(repr=False)
    _hides_watched: bool = field(repr=False)

    def recommend(self, k: int = 10, *, exclude_watched: bool = True) -> list[ScoredItem]:
        """The ``k`` best items for the member's next play as of this play, best first; fewer where the filters leave fewer.

        Every item that the model knows is scored exactly, as a worker does with ``beta`` 1 and an exact index. The domain's
        filters apply as they do there, and each fails closed: ``available``, ``at_most`` and ``contains`` by the values that
        the member sent last, ``watched`` by the last items of the member, except where the likeliest label of its head is one
        of ``unless_values``. ``exclude_watched=False`` leaves the watched filter out. A worker whose model knows no item of the
        context lists what is popular instead; this method scores all items even then.

        Raises: ConfigError when ``k`` is no whole number from 1 on.
        Cost: V · Q multiplications; under 1 ms for 10,000 items.
        """
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise ConfigError(f"k is {k!r}; allowed: a whole number from 1 on")
        return self._ranker.best(self._query, self._moment, k, hide_watched=exclude_watched and self._hides_watched)


class LiveEncoder:
    """Holds members' histories and a cache of keys and values for one model; answers each play with intents.

    ``cache_bytes`` bounds the memory for keys and values (width 64 and a context of 128 plays take some 200 kB a member). Members
    who were active longest ago lose the cache first; that costs an encoding of the whole context at the next play, and
    changes no answer. ``kv_dtype="int8"`` keeps them in little more than a quarter of the memory, on the CPU only; answers then
    differ a little. Histories are never dropped but by :meth:`forget`: at most 2n packed plays (some 30 bytes each) a member,
    with n the domain's window. Not thread safe.

    Raises: ConfigError when ``cache_bytes`` is too small for one member, ``kv_dtype`` is not ``float32`` or ``int8`` or not for
    the model's device, or the model's scores need counts of plays.
    """

    def __init__(self, model: TrainedModel, cache_bytes: int = 256 << 20, *, kv_dtype: str = KvDtype.FLOAT32) -> None:
        self.domain: Domain = model.network.domain
        self._layout = EventLayout(self.domain)
        if model.network.count_gate is not None:
            raise ConfigError(
                "the model was trained with item_counts, and LiveEncoder has no counts of plays: serve it by workers, or train "
                "with ModelConfig(item_counts=False)"
            )
        device, kv_type = str(model.network.device), KvDtype.parse(kv_dtype)
        kv_type.check_on(device)
        weights = model.network.weights()
        try:
            self._engine = IncrementalEngine(
                weights,
                model.features,
                pool_bytes=cache_bytes,
                version="live",
                device=device,
                kv_dtype=kv_type,
                num_threads=torch.get_num_threads(),
                make_encoder=None if device == CPU else partial(TorchEncoder, model.network.eval()),
            )
        except ConfigError as error:
            raise ConfigError(f"cache_bytes is too small: {error}") from error
        self._ranker = _Ranker(model, weights, self._layout)
        self._histories: dict[str, History] = {}
        self._next_offset = 0
        self._heads = self.domain.heads if model.network.config.intent_stage else ()
        self._watched_rules = [rule for rule in self.domain.filters if rule.kind is FilterKind.WATCHED]
        #: Keys of a play's attributes that the domain reads; any other is refused.
        self.attribute_keys = tuple(
            sorted({f.key for f in self.domain.event_fields} | {f.event_key for f in self.domain.event_filters})
        )

    def __len__(self) -> int:
        """How many members have a history."""
        return len(self._histories)

    def __contains__(self, user_id: object) -> bool:
        """Whether a member has a history."""
        return user_id in self._histories

    @property
    def num_cached(self) -> int:
        """How many members' keys and values are cached now."""
        return self._engine.num_cached

    @property
    def stats(self) -> EngineStats:
        """Running counts: members found in the cache and not, positions encoded, passes. Many misses: raise ``cache_bytes``."""
        return self._engine.stats

    def play(
        self,
        user_id: str,
        item_id: str,
        *,
        ts_ms: int,
        event_id: str | None = None,
        duration_s: float | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> LiveUpdate:
        """Takes one play, and answers with the member's intents. Arguments: see :class:`LivePlay`.

        Raises: DataError for a play that is not valid, naming the value and what is allowed: nothing has changed then.
        Cost: one position of the encoders, under 1 ms, where the member is cached; else the whole context.
        """
        play = LivePlay(
            user_id=user_id,
            item_id=item_id,
            ts_ms=ts_ms,
            event_id=event_id,
            duration_s=duration_s,
            attributes=NO_ATTRIBUTES if attributes is None else attributes,
        )
        return self.play_many([play])[0]

    def play_many(self, plays: Iterable[LivePlay]) -> list[LiveUpdate]:
        """Takes plays of any members in the order given, and answers each play from its member's plays up to it.

        A member's plays are encoded in one pass, all members' passes together; a pass ends where a play comes out of order
        or the context's oldest plays leave it.

        Raises: DataError for a play that is not valid, naming its place, the value and what is allowed: nothing has changed
        then. EngineError (:class:`~intentrec_core.errors.DeviceLost`) when the device is lost: the histories hold the plays.
        Cost: one position of the encoders a play, and the whole context of a member who is not cached.
        """
        given = [in_builtins(play) for play in plays]
        packed = [self._packed(play, place) for place, play in enumerate(given)]
        runs = LiveRuns(self._layout)
        places = []
        for play, data in zip(given, packed, strict=True):
            history = self._histories.setdefault(play.user_id, History())
            fold = history.apply(self._layout, data, self._next_offset)
            self._next_offset += 1
            places.append(runs.take(play.user_id, history, fold.outcome, fold.position, fold.evicted))
        encoded = [self._engine.encode([run.request() for run in wave]) for wave in runs.waves()]
        for output in encoded:
            output.intent_NP.setflags(write=False)
        return [self._update(play, place, encoded[place.run.wave]) for play, place in zip(given, places, strict=True)]

    def add_history(self, plays: pa.Table) -> int:
        """Adds a table of past plays, as :func:`intentrec_core.fit` takes it, without answering them. Returns how many were new.

        A member's context is encoded at the next play. Attributes that the domain does not read are left out.

        Raises: DataError for a column or a play that is not valid, naming its row in event-time order: nothing has changed then.
        Cost: some 10 µs a play.
        """
        keys = self.attribute_keys
        packed = []
        for row, play in enumerate(play_rows(check_plays(plays, earliest_ms=self.domain.earliest_ms))):
            attributes = {key: value for key, value in (play.context or {}).items() if key in keys}
            if play.action is not None and "action" in keys:
                attributes["action"] = play.action
            given = LivePlay(
                user_id=play.user_id,
                item_id=play.item_id,
                ts_ms=play.ts_ms,
                event_id=play.event_id,
                duration_s=play.duration_s,
                attributes=attributes,
            )
            packed.append((play.user_id, self._packed(given, row)))
        num_added = 0
        for user_id, data in packed:
            history = self._histories.setdefault(user_id, History())
            num_added += history.apply(self._layout, data, self._next_offset).outcome.changed
            self._next_offset += 1
        for user_id in dict.fromkeys(user_id for user_id, _ in packed):
            self._engine.forget(live_key(user_id))  # cached before these plays
        return num_added

    def forget(self, user_id: str) -> bool:
        """Drops everything that is held of a member; later plays begin a new history. Says whether there was anything.

        Updates returned earlier are not affected.
        """
        self._engine.forget(live_key(user_id))
        return self._histories.pop(user_id, None) is not None

    def _packed(self, play: LivePlay, place: int) -> PackedPlay:
        """The play as histories hold it. Raises: DataError when it is not valid."""
        try:
            problem = next(problems(play, self.attribute_keys, self.domain.earliest_ms), None)
            if problem is None:
                event_id = f"{play.item_id}@{play.ts_ms}" if play.event_id is None else play.event_id
                return self._layout.pack(play.item_id, event_id, play.ts_ms, play.duration_s, play.attributes)
        except (ValueError, OverflowError) as error:
            problem = str(error)
        raise DataError(f"play {place} of user {play.user_id!r}: {problem}")

    def _update(self, play: LivePlay, place: Place, out: Encoded) -> LiveUpdate:
        run, row = place.run, place.run.first_row + place.nth
        probabilities = [head[row] for head in out.heads]
        intents = {
            head.name: dict(zip(head.label_names, p.tolist(), strict=True))
            for head, p in zip(self._heads, probabilities, strict=True)
        }
        primary = None
        if self._heads:
            name, label = self.domain.flat_label(int(out.primary_N[row]))
            primary = Primary(name, label, intents[name][label])
        likeliest = {
            head.name: head.label_names[int(p.argmax())] for head, p in zip(self._heads, probabilities, strict=True)
        }
        return LiveUpdate(
            user_id=play.user_id,
            item_id=play.item_id,
            ts_ms=play.ts_ms,
            outcome=place.outcome,
            intents=intents,
            weights=dict(zip((head.name for head in self._heads), out.alpha_NM[row].tolist(), strict=True)),
            primary=primary,
            embedding=out.intent_NP[row],
            _ranker=self._ranker,
            _query=self._ranker.query(out, row),
            _moment=_Moment(run.context, run.num_plays - run.num_outputs + 1 + place.nth, run.evicted_items),
            _hides_watched=any(likeliest.get(r.unless_head) not in r.unless_values for r in self._watched_rules),
        )


class _Ranker:
    """Scores all items of one model for one member at a time, and leaves out what the domain's filters do not admit."""

    @torch.inference_mode()
    def __init__(self, model: TrainedModel, weights: ModelWeights, layout: EventLayout) -> None:
        self._own = OwnScorer(weights, model.features) if weights.config.own_items else None
        counted = model.successors
        self._successors = SuccessorScorer(counted, model.features) if counted and counted.weight else None
        vectors, bias = model.network.item_vectors()
        self._vectors_VQ: NDArray[np.float32] = vectors.float().cpu().numpy()
        self._bias_V: NDArray[np.float32] = bias.float().cpu().numpy()
        self._vocabulary, self._titles, self._layout = model.vocabulary, model.item_table.titles, layout
        domain, self._scored = model.network.domain, model.network.scored
        self._betas = weights.betas()[self._scored]
        self._available = np.ones(len(model.vocabulary), dtype=np.bool_)
        self._available[0] = False
        self._by_member: list[tuple[Filter, Any]] = []
        for rule in domain.filters:
            if rule.kind is FilterKind.WATCHED:
                continue
            column: Any = model.item_table.filter_column(rule.key)
            if rule.kind is FilterKind.AVAILABLE:
                self._available &= column
            else:
                self._by_member.append((rule, column))

    def query(self, out: Encoded, row: int) -> _Query:
        """What the items are scored with for one row of an output."""
        scores = weighted_scores([out.heads[m][row] for m in self._scored], self._betas)
        return _Query(np.concatenate([out.item_NW[row], *scores]), None if self._own is None else seen(out, [row]))

    def best(self, query: _Query, moment: _Moment, k: int, *, hide_watched: bool) -> list[ScoredItem]:
        """The best items for a member who is predicted by ``query``."""
        plays = self._layout.view(moment.context)[: moment.num_plays]
        scores = self._vectors_VQ @ query.vector + self._bias_V
        if self._own is not None and query.seen is not None:
            own = self._own.scores([plays.tobytes()], query.seen)
            scores[own.row] += own.offset
        if self._successors is not None:
            following = self._successors.scores([plays.tobytes()])
            scores[following.row] += following.offset
        scores[~self._allowed(plays)] = -np.inf
        if hide_watched and self._layout.watched:
            evicted = np.frombuffer(moment.evicted_items, dtype="<u8")
            watched = np.concatenate([evicted, plays["item_hash"]])[-self._layout.watched :]
            scores[self._vocabulary.rows(watched)] = -np.inf
        rows = _best_rows(scores, k)
        item_ids, titles = self._vocabulary.item_ids, self._titles
        return [ScoredItem(item_ids[row], titles[row], float(scores[row])) for row in rows.tolist()]

    def _allowed(self, plays: NDArray[np.void]) -> NDArray[np.bool_]:
        """What may be shown, by the values that the member sent last, else the domain's default, else nothing. Shape: bool[V]."""
        allowed = self._available
        for rule, column in self._by_member:
            sent = plays[f"filter_{rule.event_key}"]
            is_number = rule.kind is FilterKind.AT_MOST
            sent = sent[~np.isnan(sent)] if is_number else sent[sent != 0]
            value = sent[-1].item() if len(sent) else default_value(rule)
            if value is None:
                return np.zeros_like(allowed)
            allowed = allowed & (column <= value if is_number else column.get(value, False))
        return allowed


def _best_rows(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Rows of the ``k`` highest finite scores, best first, the lower row first among equals."""
    if k < len(scores):
        candidates = np.flatnonzero(scores >= np.partition(scores, len(scores) - k)[len(scores) - k])
    else:
        candidates = np.arange(len(scores))
    candidates = candidates[np.isfinite(scores[candidates])]
    return candidates[np.argsort(-scores[candidates], kind="stable")][:k]
