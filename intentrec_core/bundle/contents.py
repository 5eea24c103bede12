"""Packs a trained model into the files of a bundle, reads such files, and checks that they fit together.

A checksum proves that a file has not changed since it was written. This module checks that what was written can serve:
every file parses, shapes agree with the domain, the vocabulary and each other, and every number is finite.

Shapes: V item rows (row 0 is no item), W model width, L_h labels of head h.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from intentrec_core.bundle import format as bundle
from intentrec_core.bundle.format import BundleRef, Manifest
from intentrec_core.domain.spec import Domain, Field
from intentrec_core.domain.toml import parse_domain
from intentrec_core.errors import BundleError, BundleFault, ConfigError, DataError, DomainError
from intentrec_core.features.catalogue import Catalogue
from intentrec_core.features.vocabulary import ItemTable, Vocabulary
from intentrec_core.model.config import ModelConfig
from intentrec_core.model.intent_score import label_shares
from intentrec_core.model.weights import Array, ModelWeights, untrained_bias, weight_shapes
from intentrec_core.plays.profile import DataProfile
from intentrec_core.successors import Successors, SuccessorTable

#: Allowed difference between stored item vectors and those computed from the weights, relative to the largest value:
#: other hardware rounds differently.
_WEIGHT_TOLERANCE = 1e-3
_LABELS = "labels."
_UNTRAINED = "untrained_heads"


@dataclass(frozen=True, slots=True)
class ItemVectors:
    """The vectors that are searched: item i scores ⟨E, weights[i]⟩ + bias[i], and what the predicted
    intents say of its labels (:mod:`intentrec_core.model.intent_score`).

    Shapes: weights f32[V, W], bias f32[V], labels f32[V, L_h] by name of each item-label head, in the domain's order: as
    shares of the head (0 and 1 in bundles of earlier releases), rows of zeros where missing.
    """

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    labels: dict[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Tables:
    """A bundle's domain and items. Most bundles contain the same tables as the previous bundle; the two then share them in
    memory.

    ``digests``: SHA-256 of the files that the tables were read from.
    """

    digests: tuple[str, ...]
    domain: Domain
    domain_text: str
    vocabulary: Vocabulary
    item_table: ItemTable


@dataclass(frozen=True, slots=True)
class LoadedBundle:
    """A bundle in memory, checked. ``popularity`` is f32[V]: plays of each row in the bundle's last week of event time.
    ``successors``: None where they were not counted.
    """

    version: str
    path: Path
    manifest: Manifest
    tables: Tables
    weights: ModelWeights
    vectors: ItemVectors
    popularity: NDArray[np.float32]
    successors: Successors | None = None

    @property
    def domain(self) -> Domain:
        """The declaration of fields and intents."""
        return self.tables.domain

    @property
    def domain_text(self) -> str:
        """The text of the domain file."""
        return self.tables.domain_text

    @property
    def vocabulary(self) -> Vocabulary:
        """The items by row."""
        return self.tables.vocabulary

    @property
    def item_table(self) -> ItemTable:
        """The catalogue attributes that the domain uses, by row."""
        return self.tables.item_table

    def catalogue(self) -> Catalogue:
        """All titles and attributes of the items, read from the bundle's file. Raises: DataError when the file can no
        longer be read.
        """
        return Catalogue.load(self.path / bundle.ITEMS)

    def profile(self) -> DataProfile | None:
        """The profile of the data that the bundle was built from; None for a bundle that an earlier release built."""
        file = self.path / bundle.PROFILE
        return DataProfile.from_bytes(file.read_bytes()) if file.is_file() else None


GoldenCheck = Callable[[LoadedBundle], None]
"""Runs the golden queries on the bundle's index; raises BundleError (golden) when an answer differs."""


def item_label_heads(domain: Domain) -> tuple[Field, ...]:
    """The intent heads whose label depends on the item alone, in the domain's order."""
    return tuple(head for head in domain.heads if head.is_item_label)


def item_vectors(weights: ModelWeights, item_table: ItemTable, at_s: float) -> ItemVectors:
    """The vectors of a model's items, with labels as of ``at_s`` (seconds since 1970). Row 0 is zeros."""
    return _item_vectors(*weights.item_weights(), item_table, at_s)


def new_item_vectors(weights: ModelWeights, items: ItemTable, at_s: float) -> ItemVectors:
    """The vectors that a bundle of this model would give to items that are new to it, as :func:`item_vectors` gives them after
    the model has grown by these rows. ``items`` is a table of the new items alone.

    Shapes: as :class:`ItemVectors`, for the rows of ``items``; row 0 is zeros.
    """
    return _item_vectors(*weights.new_item_weights(items), items, at_s)


def _item_vectors(weights_VW: Array, bias_V: Array, items: ItemTable, at_s: float) -> ItemVectors:
    weights_VW[0] = 0.0
    bias_V = bias_V.copy()  # it may be the model's own
    bias_V[0] = 0.0
    return ItemVectors(weights_VW, bias_V, _labels(items, at_s))


def _labels(items: ItemTable, at_s: float) -> dict[str, NDArray[np.float32]]:
    return {head.name: label_shares(items.labels(head, at_s)) for head in item_label_heads(items.domain)}


def pack_files(
    folder: Path,
    *,
    domain_text: str,
    weights: ModelWeights,
    vocabulary: Vocabulary,
    catalogue: Catalogue,
    vectors: ItemVectors,
    popularity: NDArray[np.float32],
    index: bytes,
    golden: bytes,
    profile: DataProfile,
    successors: Successors | None = None,
) -> dict[str, bytes | Path]:
    """The files of a bundle, as :func:`intentrec_core.bundle.format.write_bundle` takes them. Tables are first written
    into ``folder``.
    """
    arrays = {"weights": vectors.weights, "bias": vectors.bias}
    arrays |= {_LABELS + name: np.ascontiguousarray(labels) for name, labels in vectors.labels.items()}
    return {
        **pack_model(
            folder,
            domain_text=domain_text,
            weights=weights,
            vocabulary=vocabulary,
            catalogue=catalogue,
            successors=successors,
        ),
        bundle.VECTORS: save_arrays(arrays),
        bundle.INDEX: index,
        bundle.POPULARITY: save_arrays({"popularity": popularity.astype(np.float32)}),
        bundle.GOLDEN: golden,
        bundle.PROFILE: profile.to_bytes(),
    }


def pack_model(
    folder: Path,
    *,
    domain_text: str,
    weights: ModelWeights,
    vocabulary: Vocabulary,
    catalogue: Catalogue,
    successors: Successors | None = None,
) -> dict[str, bytes | Path]:
    """The files of a model without what is derived from it; tables are written into ``folder``."""
    vocabulary.save(folder / bundle.VOCABULARY)
    catalogue.save(folder / bundle.ITEMS)
    return {
        bundle.WEIGHTS: save_arrays(dict(weights.arrays)),
        bundle.MODEL: json.dumps(_model_card(weights), indent=2, sort_keys=True).encode() + b"\n",
        bundle.DOMAIN: domain_text.encode(),
        bundle.VOCABULARY: folder / bundle.VOCABULARY,
        bundle.ITEMS: folder / bundle.ITEMS,
        **({} if successors is None else {bundle.SUCCESSORS: _successor_bytes(successors)}),
    }


def _successor_bytes(successors: Successors) -> bytes:
    table = successors.table
    weight = np.array([successors.weight], dtype=np.float32)
    return save_arrays(
        {
            "starts": table.starts,
            "rows": table.rows,
            "counts": table.counts,
            "totals": table.totals,
            "weight": weight,
        }
    )


def _model_card(weights: ModelWeights) -> dict[str, Any]:
    """Sizes of the model, and the heads that were not trained, if any."""
    untrained = list(weights.untrained_heads)
    return weights.config.to_dict() | ({_UNTRAINED: untrained} if untrained else {})


def load_bundle(
    source: Path | BundleRef,
    golden: GoldenCheck | None = None,
    known: Tables | None = None,
) -> LoadedBundle:
    """Verifies a bundle's files, reads them and checks them against each other.

    ``source``: a folder, or a ref that :meth:`~intentrec_core.bundle.store.BundleStore.fetch` has verified. Of a ref,
    only files that have changed since then are hashed again. ``known``: tables of another bundle, used instead of
    reading this bundle's if their files are the same.

    Raises: BundleError: the faults of :func:`intentrec_core.bundle.format.verify_files`, and domain, vocabulary, shape,
    not_finite, golden.
    Cost: reads the bundle; hashes each file at most once.
    """
    ref = source if isinstance(source, BundleRef) else BundleRef(source.name, source)
    path, manifest = ref.path, bundle.verify_again(ref)
    reader = ContentsReader(path, manifest.version)
    digests = tuple(manifest.files[name].sha256 for name in (bundle.DOMAIN, bundle.VOCABULARY, bundle.ITEMS))
    tables = known if known is not None and known.digests == digests else reader.tables(digests)
    weights = reader.weights(tables.domain, tables.item_table)
    loaded = LoadedBundle(
        version=manifest.version,
        path=path,
        manifest=manifest,
        tables=tables,
        weights=weights,
        vectors=reader.vectors(weights),
        popularity=reader.popularity(len(tables.vocabulary)),
        successors=reader.successors(len(tables.vocabulary)) if bundle.SUCCESSORS in manifest.files else None,
    )
    if golden is not None:
        golden(loaded)
    return loaded


class ContentsReader:
    """Reads the files of one bundle. Every problem becomes a BundleError that names the file."""

    def __init__(self, path: Path, version: str) -> None:
        self._path, self._version = path, version

    def tables(self, digests: tuple[str, ...]) -> Tables:
        """Domain, vocabulary and item table."""
        try:
            text = (self._path / bundle.DOMAIN).read_text("utf-8")
            domain = parse_domain(text, bundle.DOMAIN)
        except (DomainError, UnicodeDecodeError) as error:
            raise self._error(BundleFault.DOMAIN, str(error)) from error
        try:
            vocabulary = Vocabulary.load(self._path / bundle.VOCABULARY)
            catalogue = Catalogue.load(self._path / bundle.ITEMS)
        except DataError as error:
            raise self._error(BundleFault.VOCABULARY, str(error)) from error
        return Tables(digests, domain, text, vocabulary, ItemTable(domain, vocabulary, catalogue))

    def weights(self, domain: Domain, item_table: ItemTable) -> ModelWeights:
        """The weights of the model."""
        try:
            card = json.loads((self._path / bundle.MODEL).read_bytes())
            untrained = card.pop(_UNTRAINED, [])
            config = ModelConfig(**card)
            untrained_bias(domain, untrained)  # refuses heads that are none
        except (ValueError, TypeError, AttributeError, ConfigError) as error:
            raise self._error(BundleFault.SHAPE, f"{bundle.MODEL}: {error}") from error
        arrays = self._arrays(bundle.WEIGHTS)
        wanted = weight_shapes(config, domain, len(item_table))
        if "intent_beta" in wanted:
            # Of an earlier release, without it: intents add nothing to its scores.
            arrays.setdefault("intent_beta", np.zeros(wanted["intent_beta"], dtype=np.float32))
        self._same_shapes(bundle.WEIGHTS, {name: array.shape for name, array in arrays.items()}, wanted)
        return ModelWeights(config, domain, item_table, arrays, untrained)

    def vectors(self, model: ModelWeights) -> ItemVectors:
        """The item vectors, which must be those of the weights."""
        arrays = self._arrays(bundle.VECTORS)
        heads = item_label_heads(model.domain)
        num_rows = model.num_rows
        wanted = {"weights": (num_rows, model.config.width), "bias": (num_rows,)}
        wanted |= {_LABELS + head.name: (num_rows, head.num_labels) for head in heads}
        self._same_shapes(bundle.VECTORS, {name: array.shape for name, array in arrays.items()}, wanted)
        vectors = ItemVectors(
            arrays["weights"], arrays["bias"], {head.name: arrays[_LABELS + head.name] for head in heads}
        )
        weights, bias = model.item_weights()
        for name, stored, own in (("weights", vectors.weights, weights), ("bias", vectors.bias, bias)):
            limit = _WEIGHT_TOLERANCE * max(1.0, float(np.abs(own[1:]).max(initial=0.0)))
            if float(np.abs(stored[1:] - own[1:]).max(initial=0.0)) > limit:
                raise self._error(
                    BundleFault.GOLDEN, f"{bundle.VECTORS}: {name} differ from those that {bundle.WEIGHTS} gives"
                )
        return vectors

    def popularity(self, num_rows: int) -> NDArray[np.float32]:
        """Plays of each row."""
        arrays = self._arrays(bundle.POPULARITY)
        shapes = {name: array.shape for name, array in arrays.items()}
        self._same_shapes(bundle.POPULARITY, shapes, {"popularity": (num_rows,)})
        return arrays["popularity"]

    def successors(self, num_rows: int) -> Successors:
        """What usually follows each item, and how much it counts."""
        arrays = self._read(bundle.SUCCESSORS)
        try:
            table = SuccessorTable(*(arrays[name] for name in ("starts", "rows", "counts", "totals")))
            (weight,) = arrays["weight"].tolist()
            if table.num_rows != num_rows:
                raise ValueError(f"a table of {table.num_rows} items, must be of {num_rows}")
            return Successors(table, float(weight))
        except KeyError as error:
            raise self._error(BundleFault.SHAPE, f"{bundle.SUCCESSORS}: {error} is absent") from error
        except (ValueError, TypeError) as error:
            raise self._error(BundleFault.SHAPE, f"{bundle.SUCCESSORS}: {error}") from error

    def _read(self, file: str) -> dict[str, NDArray[Any]]:
        try:
            return load_arrays((self._path / file).read_bytes())
        except SafetensorError as error:
            raise self._error(BundleFault.SHAPE, f"{file}: {error}") from error
        except KeyError as error:
            raise self._error(BundleFault.SHAPE, f"{file}: NumPy has no numbers of the type {error}") from error

    def _arrays(self, file: str) -> dict[str, NDArray[np.float32]]:
        arrays = self._read(file)
        for name, array in arrays.items():
            if array.dtype != np.float32:
                raise self._error(BundleFault.SHAPE, f"{file}: {name} is {array.dtype}, must be float32")
            if not np.isfinite(array).all():
                raise self._error(BundleFault.NOT_FINITE, f"{file}: {name}")
        return arrays

    def _same_shapes(self, file: str, found: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]]) -> None:
        if found == wanted:
            return
        name = next(name for name in sorted(found.keys() | wanted.keys()) if found.get(name) != wanted.get(name))
        detail = f"{file}: {name} has shape {found.get(name, 'none')}, must be {wanted.get(name, 'absent')}"
        raise self._error(BundleFault.SHAPE, detail)

    def _error(self, fault: BundleFault, detail: str) -> BundleError:
        return BundleError(fault, self._version, " ".join(detail.split())[:300])
