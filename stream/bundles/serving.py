"""One bundle, loaded and ready to serve: encoder, vocabulary, index, filters and names. They are only ever swapped together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.base import ItemIndex
from index.filters import FilterSet
from index.threads import num_threads
from intentrec_core.bundle.contents import LoadedBundle, Tables, item_label_heads
from intentrec_core.bundle.format import BundleRef
from intentrec_core.device import CPU, resolve_device
from intentrec_core.domain.spec import Domain, FilterKind
from intentrec_core.engine.count_scores import CountGate
from intentrec_core.engine.engine import IncrementalEngine
from intentrec_core.engine.kv_dtype import KvDtype
from intentrec_core.engine.own_scores import OwnScorer
from intentrec_core.engine.probe import UNKNOWN_ITEM, encode_probe
from intentrec_core.engine.successor_scores import SuccessorScorer
from intentrec_core.errors import BundleError, BundleFault
from intentrec_core.features.features import FeatureBuilder
from intentrec_core.features.vocabulary import ItemTable, Vocabulary
from intentrec_core.times import parse_time
from stream.bundles.verification import load_verified

#: The fact in the manifest with the event time up to which popularity was counted.
PLAYS_UNTIL = "plays_until_ms"


@dataclass(frozen=True, slots=True)
class Serving:
    """Everything that is needed to answer a play, from one bundle.

    ``labels`` f32[V, L]: the item labels of each head whose label depends on the item alone; ``label_heads``: the numbers of
    these heads in the domain; ``label_betas`` f32[heads]: how much each of them adds to the score of an item. ``own``:
    what a member's plays add to the scores of their items; ``counts``: how much counts of plays add to them; ``successors``: what
    usually follows the last plays adds to them; None for a model in which they add nothing. ``popularity``
    f32[V]: plays in the 7 days up to ``counted_at_s``, which is -inf if the bundle does not state it.
    """

    version: str
    created_s: float
    tables: Tables
    features: FeatureBuilder
    engine: IncrementalEngine
    index: ItemIndex
    filters: FilterSet
    labels: Sequence[NDArray[np.float32]]
    label_heads: Sequence[int]
    label_betas: NDArray[np.float32]
    own: OwnScorer | None
    counts: CountGate | None
    successors: SuccessorScorer | None
    popularity: NDArray[np.float32]
    counted_at_s: float

    @property
    def domain(self) -> Domain:
        """The declaration of fields and intents."""
        return self.tables.domain

    @property
    def vocabulary(self) -> Vocabulary:
        """The items by row."""
        return self.tables.vocabulary

    @property
    def items(self) -> ItemTable:
        """The catalogue attributes that the domain uses, by row."""
        return self.tables.item_table

    @property
    def has_intents(self) -> bool:
        """Whether the model predicts intents."""
        return self.engine.weights.config.intent_stage

    @property
    def embedding_width(self) -> int:
        """Width of the intent embedding; 0 if the model predicts no intents."""
        return self.engine.weights.config.intent_width if self.has_intents else 0

    @property
    def query_width(self) -> int:
        """Width of a query: the dimensions of the index, and the columns of counts where they are a part of the score."""
        return self.index.dimension + (0 if self.counts is None else self.counts.num_columns)

    @property
    def hides_watched(self) -> bool:
        """Whether a filter of the domain hides watched items."""
        return any(rule.kind is FilterKind.WATCHED for rule in self.domain.filters)

    def extends(self, older: Serving) -> bool:
        """Whether every item row of ``older`` is the same item in this bundle."""
        return self.vocabulary.extends(older.vocabulary)


def load_serving(
    source: Path | BundleRef,
    *,
    device: str,
    pool_bytes: int,
    kv_dtype: str = KvDtype.FLOAT32,
    known: Tables | None = None,
) -> Serving:
    """Loads a bundle for serving: verifies it, runs its golden queries, and encodes one play with it.

    ``source``: a folder, or the ref that :meth:`~intentrec_core.bundle.store.BundleStore.fetch` returned; then no file is hashed
    twice. ``pool_bytes``: the most its engine may use for cached keys and values, ``kv_dtype``: their type. ``known``: tables of
    another bundle, shared if the files are the same; reading them would hold Python's lock for most of the load.

    Raises: BundleError when the bundle must not serve; ConfigError when there is no such device, it does not take this type,
    or the pool is too small for one member.
    Cost: seconds; reads the whole bundle. The pool's memory is allocated as members come.
    """
    device = resolve_device(device)
    loaded, index = load_verified(source, known=known)
    serving = make_serving(loaded, index, pool_bytes=pool_bytes, device=device, kv_dtype=kv_dtype)
    _check_encodes(serving)
    return serving


def _check_encodes(serving: Serving) -> None:
    """Encodes one play: finite weights can still give numbers that are not finite, and a starting worker has no member to try."""
    items = serving.vocabulary.item_ids
    item_id = items[1] if len(items) > 1 else UNKNOWN_ITEM
    encoded = encode_probe(serving.engine, serving.features.layout, item_id)
    if not np.isfinite(encoded.item_NW).all():
        raise BundleError(BundleFault.NOT_FINITE, serving.version, "cannot encode a play of one of its items")


def _created_s(created_at: str) -> float:
    """When a bundle was built, in seconds since 1970; 0 if its manifest does not say so."""
    try:
        return parse_time(created_at) / 1000.0
    except ValueError:
        return 0.0


def make_serving(
    loaded: LoadedBundle, index: ItemIndex, *, pool_bytes: int, device: str = CPU, kv_dtype: str = KvDtype.FLOAT32
) -> Serving:
    """Combines a loaded bundle and its index.

    Raises: ConfigError when the pool is too small for one member, or the device does not take ``kv_dtype``.
    """
    domain, items, manifest = loaded.domain, loaded.item_table, loaded.manifest
    features = FeatureBuilder(domain, loaded.vocabulary, items)
    until_ms = manifest.facts.get(PLAYS_UNTIL)
    label_heads = [m for m, head in enumerate(domain.heads) if head.is_item_label]
    return Serving(
        version=loaded.version,
        created_s=_created_s(manifest.created_at),
        tables=loaded.tables,
        features=features,
        engine=IncrementalEngine(
            loaded.weights,
            features,
            pool_bytes=pool_bytes,
            version=loaded.version,
            device=device,
            kv_dtype=KvDtype.parse(kv_dtype),
            num_threads=num_threads(),
        ),
        index=index,
        filters=filters_of(items),
        labels=[loaded.vectors.labels[head.name] for head in item_label_heads(domain)],
        label_heads=label_heads,
        label_betas=loaded.weights.betas()[label_heads],
        own=OwnScorer(loaded.weights, features) if loaded.weights.config.own_items else None,
        counts=CountGate(loaded.weights) if loaded.weights.config.item_counts else None,
        successors=SuccessorScorer(loaded.successors, features)
        if loaded.successors and loaded.successors.weight
        else None,
        popularity=loaded.popularity,
        counted_at_s=until_ms / 1000.0 if isinstance(until_ms, int | float) else float("-inf"),
    )


def filters_of(items: ItemTable) -> FilterSet:
    """The filters of the items' domain, over their data."""
    rules = items.domain.filters
    columns = {rule.key: items.filter_column(rule.key) for rule in rules if rule.kind is not FilterKind.WATCHED}
    return FilterSet(len(items), rules, columns)
