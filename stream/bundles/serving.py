"""One bundle, ready to serve: its encoder, vocabulary, index, filters and names, which are only ever taken over together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index import artifact
from index.base import ItemIndex
from index.conditioning import augment
from index.filters import FilterSet
from index.golden import check_golden
from intentrec_core.bundle import format as bundle
from intentrec_core.bundle.contents import LoadedBundle, Tables, item_label_heads, load_bundle
from intentrec_core.device import resolve_device
from intentrec_core.domain.spec import Domain, FilterKind
from intentrec_core.engine.engine import EncodeRequest, IncrementalEngine
from intentrec_core.engine.member_key import MemberKey
from intentrec_core.errors import BundleError, BundleFault
from intentrec_core.features.features import FeatureBuilder
from intentrec_core.features.vocabulary import ItemTable, Vocabulary
from stream.wire.codec import parse_time

#: The manifest's fact that says up to which event time popularity was counted.
COUNTED_UNTIL = "plays_until_ms"
_PROBE = MemberKey(-1, "probe")


@dataclass(frozen=True, slots=True)
class Serving:
    """Everything that answers a play, of one version.

    ``labels`` f32[V, L] of the heads whose label is an item's own; ``label_heads`` says which of the domain's heads these are.
    ``popularity`` f32[V]: plays in the 7 days up to ``counted_at_s``, which is -inf where the bundle does not say.
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
    popularity: NDArray[np.float32]
    counted_at_s: float

    @property
    def domain(self) -> Domain:
        """What an intent is here."""
        return self.tables.domain

    @property
    def vocabulary(self) -> Vocabulary:
        """Items by row."""
        return self.tables.vocabulary

    @property
    def items(self) -> ItemTable:
        """What the domain reads of the items."""
        return self.tables.item_table

    @property
    def has_intents(self) -> bool:
        """Whether the model predicts intents at all."""
        return self.engine.model.config.intent_stage

    @property
    def hides_watched(self) -> bool:
        """Whether any filter hides what a member has watched."""
        return any(rule.kind is FilterKind.WATCHED for rule in self.domain.filters)

    def extends(self, older: Serving) -> bool:
        """Whether every item row of ``older`` means the same item here."""
        return self.vocabulary.extends(older.vocabulary)


def load_serving(path: Path, *, device: str, pool_bytes: int, known: Tables | None = None) -> Serving:
    """Verifies a bundle, asks its golden queries, has it encode a play, and makes it ready to serve.

    ``pool_bytes`` is what its engine may take for cached keys and values; ``known`` tables of another bundle, shared where its
    files are the same: reading them holds Python's lock for most of the time that loading takes.

    Raises: BundleError when it must not serve; ConfigError when the pool is too small for one member.
    Cost: seconds; reads the whole bundle. Of the pool, memory is taken as members come.
    """
    built: list[ItemIndex] = []

    def ask(loaded: LoadedBundle) -> None:
        vectors = augment(loaded.vectors.weights, loaded.vectors.bias, list(loaded.vectors.labels.values()))
        index = artifact.load(path / bundle.INDEX, vectors, loaded.version)
        check_golden(index, (path / bundle.GOLDEN).read_bytes(), loaded.version)
        built.append(index)

    loaded = load_bundle(path, resolve_device(device), golden=ask, known=known)
    serving = make_serving(loaded, built[0], pool_bytes=pool_bytes)
    _check_encodes(serving)
    return serving


def _check_encodes(serving: Serving) -> None:
    """Finite weights can make no finite numbers, and at a start there is nobody to warm up with."""
    item_id = next(iter(serving.vocabulary.item_ids[1:]), _PROBE.user_id)
    play = serving.features.layout.pack(
        item_id=item_id, event_id=_PROBE.user_id, ts_ms=0, duration_s=None, attributes={}
    )
    encoded = serving.engine.encode([EncodeRequest(_PROBE, 0, play.data, 0)])
    serving.engine.forget(_PROBE)
    if not np.isfinite(encoded.item_NW).all():
        raise BundleError(BundleFault.NOT_FINITE, serving.version, "cannot encode a play of one of its items")


def make_serving(loaded: LoadedBundle, index: ItemIndex, *, pool_bytes: int) -> Serving:
    """Puts a loaded bundle and its index together.

    Raises: ConfigError when the pool is too small for one member.
    """
    domain, items, manifest = loaded.domain, loaded.item_table, loaded.manifest
    features = FeatureBuilder(domain, loaded.vocabulary, items)
    columns = {f.key: items.filter_column(f.key) for f in domain.filters if f.kind is not FilterKind.WATCHED}
    created_ms, until_ms = parse_time(manifest.created_at), manifest.facts.get(COUNTED_UNTIL)
    return Serving(
        version=loaded.version,
        created_s=(created_ms or 0) / 1000.0,
        tables=loaded.tables,
        features=features,
        engine=IncrementalEngine(loaded.model, features, pool_bytes=pool_bytes, version=loaded.version),
        index=index,
        filters=FilterSet(len(loaded.vocabulary), domain.filters, columns),
        labels=[loaded.vectors.labels[head.name] for head in item_label_heads(domain)],
        label_heads=[m for m, head in enumerate(domain.heads) if head.is_item_label],
        popularity=loaded.popularity,
        counted_at_s=until_ms / 1000.0 if isinstance(until_ms, int | float) else float("-inf"),
    )
