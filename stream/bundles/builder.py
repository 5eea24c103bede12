"""Builds a bundle from a trained model: item vectors, index, popularity and golden queries in one folder.

    model, plays ──▶ data profile ──▶ vectors ──▶ index ──▶ recall against exact ──▶ golden answers ──▶ write_bundle

"As of the build" is the event time of the newest play, never the clock: item ages and popularity mean the same when old
plays are replayed.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from index import artifact
from index.base import Vectors
from index.conditioning import augment, query
from index.exact import ExactIndex
from index.golden import golden_bytes
from index.recall import recall_at_k
from intentrec_core.baselines.popularity import WEEK_S
from intentrec_core.bundle.contents import item_label_heads, item_vectors, pack_files
from intentrec_core.bundle.format import BundleRef, write_bundle
from intentrec_core.bundle.model_folder import Model
from intentrec_core.bundle.store import BundleStore
from intentrec_core.engine.reference import recompute
from intentrec_core.errors import BundleError, ConfigError, DataError
from intentrec_core.features.catalogue import Catalogue
from intentrec_core.features.features import FeatureBuilder
from intentrec_core.features.vocabulary import Vocabulary
from intentrec_core.history.history import anchor, hash64
from intentrec_core.limits import MAX_TITLE_LENGTH
from intentrec_core.model.intent_score import weighted_scores
from intentrec_core.model.model import IntentRec
from intentrec_core.plays.drift import drift
from intentrec_core.plays.drift import warnings as drift_warnings
from intentrec_core.plays.findings import findings, refuse_meaningless
from intentrec_core.plays.members import pack_members
from intentrec_core.plays.profile import DataProfile, measure
from intentrec_core.times import iso_time
from stream.bundles.serving import PLAYS_UNTIL
from stream.bundles.verification import check_bundle

logger = logging.getLogger(__name__)

#: No publication takes this long: what was last written to before that is left by a publisher that was killed.
LEFTOVERS_AGE = timedelta(days=1)
NUM_GOLDEN = 32
GOLDEN_K = 10
NUM_PLANNING = 1024
_CONTEXTS_AT_ONCE = 32
#: Among these, the members who played last are found.
_NEWEST_PLAYS = 20_000
#: How a worker may scale the intents' share of the score: a plan made for one alone may miss what another one finds.
PLANNED_BETAS = np.array([0.0, 0.5, 1.0], dtype=np.float32)

TRAINED_UNTIL, DOMAIN_NAME = "trained_until_ms", "domain"


@dataclass(frozen=True, slots=True)
class BuiltBundle:
    """A bundle on this machine, whole and verified. ``recall`` is the index's share of the exact best ten.

    ``warnings`` says what is doubtful about the data, one line each. ``drift``: how far they are from those of the previous
    bundle, by field and filter, from 0 to 1; empty if there is none to compare with.
    """

    ref: BundleRef
    index_kind: str
    num_items: int
    recall: float
    warnings: Sequence[str]
    drift: Mapping[str, float]

    def line(self) -> str:
        """The build as one line of text."""
        return (
            f"bundle {self.ref.version}: {self.num_items} items, index {self.index_kind}, "
            f"recall@{GOLDEN_K} against exact {self.recall:.4f}"
        )


def build_bundle(
    root: Path,
    model: Model,
    plays: pa.Table,
    *,
    parent: str | None = None,
    previous: DataProfile | None = None,
    index_kind: str = artifact.AUTO,
    metrics: Mapping[str, float] | None = None,
    facts: Mapping[str, str | int | float] | None = None,
) -> BuiltBundle:
    """Writes a bundle of ``model`` under ``root``, reads it back and runs its golden queries.

    ``plays`` (schema PLAYS, event-time order) are all known plays; popularity counts those of the last 7 days. ``index_kind`` is
    one of :data:`index.artifact.CHOICES`. ``parent`` is the bundle that the model was trained from, and ``previous`` the data
    profile to compare with; ``metrics`` and ``facts`` are added to the manifest's.

    Raises: DataError when there are no plays, or they or the catalogue make an intent or a filter meaningless; ConfigError when
    there are too few items or members for the kind of index; BundleError when what was written does not verify (NaN, golden,
    message_size …): then the folder stays, unannounced and unused; OSError when a write fails.
    Cost: the index of V items; a pass of the model over 32 contexts, or 1,056 for an index that is planned from queries.
    """
    if not plays.num_rows:
        raise DataError("no plays: a bundle is built as of its newest play")
    until_ms = int(plays.column("ts_ms")[plays.num_rows - 1].as_py())
    profile = measure(model.features, model.item_table, plays)
    refuse_meaningless(model.domain, profile)
    moved = drift(model.domain, previous, profile) if previous else {}
    weights = model.network.weights()
    vectors = item_vectors(weights, model.item_table, until_ms / 1000)
    searched = augment(vectors.weights, vectors.bias, list(vectors.labels.values()))
    queries = golden_queries(model.network, model.features, newest_contexts(model.features, plays, NUM_GOLDEN))
    num_items = len(model.vocabulary) - 1
    check_index_kind(index_kind, num_items, plays)
    asked = None
    if artifact.needs_queries(index_kind, len(searched)):
        asked = planning_queries(model.network, model.features, newest_contexts(model.features, plays, NUM_PLANNING))
    index = artifact.build(searched, index_kind, asked)
    recall = recall_at_k(index, ExactIndex(searched), queries, GOLDEN_K)
    own_facts: dict[str, str | int | float] = {
        DOMAIN_NAME: model.domain.name,
        PLAYS_UNTIL: until_ms,
        TRAINED_UNTIL: model.trained_until_ms,
        "num_plays": plays.num_rows,
        "num_items": num_items,
        "index_kind": artifact.kind_of(index),
        "index_choice": artifact.described(index_kind),
        "successor_weight": model.successors.weight if model.successors else 0.0,
    }
    with tempfile.TemporaryDirectory(prefix="intentrec-bundle-") as folder:
        files = pack_files(
            Path(folder),
            domain_text=model.domain_text,
            weights=weights,
            vocabulary=model.vocabulary,
            catalogue=model.catalogue,
            vectors=vectors,
            popularity=popularity(plays, model.vocabulary, until_ms),
            index=artifact.to_bytes(index),
            golden=golden_bytes(index, queries, min(GOLDEN_K, num_items)),
            profile=profile,
            successors=model.successors,
        )
        ref = write_bundle(
            root,
            files=files,
            parent=parent,
            created_at=iso_time(time.time_ns() // 1_000_000),
            code_version=metadata.version("intentrec"),
            metrics={"index_recall_at_10": recall, **_largest(moved), **(metrics or {})},
            facts={**own_facts, **(facts or {})},
        )
    _warn_of_long_titles(model.catalogue)
    check_bundle(ref)
    doubts = [finding.text for finding in findings(model.domain, profile)] + drift_warnings(moved)
    return BuiltBundle(ref, artifact.kind_of(index), num_items, recall, doubts, moved)


def _largest(moved: Mapping[str, float]) -> dict[str, float]:
    return {"data_drift": max(moved.values())} if moved else {}


def check_index_kind(kind: str, num_items: int, plays: pa.Table) -> None:
    """Checks, before any work, whether an index of this kind can be built for so many items and the members of these plays.

    Raises: ConfigError with what it needs and what there is.
    """
    min_items, min_members = artifact.fewest(kind)
    num_members = len(_newest_members(plays, NUM_PLANNING))
    if num_items < min_items or num_members < min_members:
        raise ConfigError(
            f"index {kind} needs {min_items} items and {min_members} members in the newest {_NEWEST_PLAYS:,} plays; there are "
            f"{num_items} and {num_members}: choose {artifact.AUTO} or flat with --index or INTENTREC_INDEX"
        )


def _warn_of_long_titles(catalogue: Catalogue) -> None:
    long = [item for item in catalogue if len(item.title) > MAX_TITLE_LENGTH]
    if long:
        logger.warning(
            "catalogue: the titles of %d items have more than %d characters and are cut in lists, the first is that of item %s",
            len(long),
            MAX_TITLE_LENGTH,
            long[0].item_id,
        )


def remove_leftovers(store: BundleStore) -> None:
    """Removes from a store what publishers that were killed have left there; call it before a bundle is published. Never raises:
    leftovers do no harm but take space.
    """
    try:
        removed = store.remove_leftovers(datetime.now(UTC) - LEFTOVERS_AGE)
    except BundleError as error:
        logger.warning("half published bundles cannot be removed: %s", error)
    else:
        if removed:
            logger.info("removed what a killed publisher left in %s: %s", store.url, ", ".join(removed))


def newest_contexts(features: FeatureBuilder, plays: pa.Table, at_most: int) -> list[bytes]:
    """The packed contexts of the members who played last, as of their newest play."""
    users = pa.array(_newest_members(plays, at_most), plays.schema.field("user_id").type)
    members = pack_members(features.layout, plays.filter(pc.is_in(plays.column("user_id"), users)))
    contexts = []
    for begin, end in members.spans():
        start = begin + anchor(end - begin, features.layout.window)
        contexts.append(members.packed(start, end))
    return contexts


def planning_queries(model: IntentRec, features: FeatureBuilder, contexts: Sequence[bytes]) -> Vectors:
    """Sample queries after the newest play of each packed context, with the intents' share of the score scaled by several betas.

    Shapes: f32[N, D'].
    """
    asked = golden_queries(model, features, contexts)
    # Neighbours share a beta: a plan is fitted to every other query and judged by the rest.
    betas = np.resize(np.repeat(PLANNED_BETAS, 2), len(asked))
    asked[:, model.config.width + 1 :] *= betas[:, None]
    return asked


def golden_queries(model: IntentRec, features: FeatureBuilder, contexts: Sequence[bytes]) -> Vectors:
    """What the index would be asked after the newest play of each packed context.

    Shapes: f32[N, D'].
    """
    # A few at a time: attention over whole contexts takes memory by the square of their length.
    parts = [
        _asked(model, features, contexts[low : low + _CONTEXTS_AT_ONCE])
        for low in range(0, len(contexts), _CONTEXTS_AT_ONCE)
    ]
    return np.concatenate(parts)


def _newest_members(plays: pa.Table, at_most: int) -> list[str]:
    """The members who played last, the latest first."""
    newest = plays.slice(max(0, plays.num_rows - _NEWEST_PLAYS)).column("user_id").to_pylist()
    return list(dict.fromkeys(reversed(newest)))[:at_most]


def _asked(model: IntentRec, features: FeatureBuilder, contexts: Sequence[bytes]) -> Vectors:
    """What the index would be asked after the newest play of each context."""
    encoded = recompute(model, features, contexts)
    labelled = item_label_heads(model.domain)
    probabilities = [p for head, p in zip(model.domain.heads, encoded.heads, strict=False) if head in labelled]
    betas = [
        float(beta) for head, beta in zip(model.domain.heads, model.weights().betas(), strict=True) if head in labelled
    ]
    if not probabilities:  # a model without heads still has the labels in its vectors
        probabilities = [np.zeros((len(contexts), head.num_labels), dtype=np.float32) for head in labelled]
    return query(encoded.item_NW, weighted_scores(probabilities, betas))


def popularity(plays: pa.Table, vocabulary: Vocabulary, until_ms: int) -> NDArray[np.float32]:
    """Plays of each row in the 7 days up to ``until_ms``. Shape: f32[V]."""
    recent = plays.filter(pc.greater(plays.column("ts_ms"), int(until_ms - WEEK_S * 1000)))
    items = recent.column("item_id").combine_chunks().dictionary_encode()
    hashes = np.array([hash64(item) for item in items.dictionary.to_pylist()], dtype=np.uint64)
    rows = vocabulary.rows(hashes)[items.indices.to_numpy()]
    counts = np.bincount(rows, minlength=len(vocabulary)).astype(np.float32)
    counts[0] = 0.0
    return counts
