"""A trained model with its items, and the folder it is saved in: what a bundle is built from.

    <folder>/
        weights.safetensors model.json        the network
        domain.toml                           what fields and intents mean
        vocabulary.parquet items.parquet      item id ↔ row, titles and attributes
        successors.safetensors                what usually follows each item
        saved_model.json                      SHA-256 of each of them, up to when it learned, format

The files are those of a bundle (:mod:`intentrec_core.bundle.format`) without what is derived from them: item vectors, index,
popularity, golden queries. There is no pickle in it: reading a folder of unknown origin runs none of its bytes.
"""

from __future__ import annotations

import shutil
import uuid
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec

from intentrec_core.bundle.contents import ContentsReader, pack_model
from intentrec_core.bundle.format import (
    DOMAIN,
    ITEMS,
    MANIFEST,
    MODEL,
    SUCCESSORS,
    VOCABULARY,
    WEIGHTS,
    FileEntry,
    file_entry,
)
from intentrec_core.device import resolve_device
from intentrec_core.domain.spec import Domain
from intentrec_core.durable_files import rename_durably
from intentrec_core.errors import BundleError, ConfigError, DataError
from intentrec_core.features.catalogue import Catalogue
from intentrec_core.features.features import FeatureBuilder
from intentrec_core.features.vocabulary import ItemTable, Vocabulary
from intentrec_core.model.model import IntentRec
from intentrec_core.successors import Successors

#: Raised when code of an earlier format would misread a folder; code reads its own format only.
MODEL_FORMAT = 1
MODEL_FILES = (WEIGHTS, MODEL, DOMAIN, VOCABULARY, ITEMS)
CARD = "saved_model.json"


@dataclass(frozen=True, eq=False, kw_only=True)
class Model:
    """A trained network, the items it knows, and the domain it was trained for: what ``fit`` and ``load`` return.

    ``catalogue`` may hold more items than the ``vocabulary``, which numbers the items that were played.
    ``trained_until_ms`` is the event time up to which it has learned, excluded (milliseconds since 1970). ``successors``:
    what usually follows each item; None where that was not counted.
    """

    network: IntentRec
    domain_text: str
    vocabulary: Vocabulary
    catalogue: Catalogue
    item_table: ItemTable
    trained_until_ms: int
    successors: Successors | None = None

    @property
    def domain(self) -> Domain:
        """What an intent is here."""
        return self.network.domain

    @cached_property
    def features(self) -> FeatureBuilder:
        """Packed plays to inputs of the network."""
        return FeatureBuilder(self.domain, self.vocabulary, self.item_table)

    def save(self, folder: str | Path) -> Path:
        """Writes the model to ``folder``: to a temporary name beside it, then renamed. A reader sees it whole or not at all.

        A saved model that is there already is replaced. The history of members is no part of a model.

        Raises: ConfigError when ``folder`` is a file, or holds anything but a saved model; DataError when a write fails.
        Cost: the weights and the catalogue are written once.
        """
        target = Path(folder)
        _refuse_foreign(target)
        temporary = target.absolute().with_name(f".writing-{uuid.uuid4().hex}")
        try:
            temporary.mkdir(parents=True)
            self._write(temporary)
            _put_in_place(temporary, target)
        except OSError as error:
            raise DataError(f"{target} cannot be written: {error}") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return target

    def _write(self, folder: Path) -> None:
        files = pack_model(
            folder,
            domain_text=self.domain_text,
            weights=self.network.weights(),
            vocabulary=self.vocabulary,
            catalogue=self.catalogue,
            successors=self.successors,
        )
        for name, content in files.items():
            if isinstance(content, bytes):
                (folder / name).write_bytes(content)
        entries = {name: file_entry(folder / name) for name in files}
        card = _Card(format=MODEL_FORMAT, trained_until_ms=self.trained_until_ms, files=entries)
        text = msgspec.json.format(msgspec.json.encode(card, order="deterministic"), indent=2)
        (folder / CARD).write_bytes(text + b"\n")


class _Card(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of ``saved_model.json``."""

    format: int
    trained_until_ms: int
    files: dict[str, FileEntry]


def load_model(folder: str | Path, *, device: str = "auto") -> Model:
    """Reads a model that :meth:`Model.save` wrote, checked: every byte, shape and number.

    ``device`` is ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:N``.

    Raises: DataError, naming the file and what is wrong with it; ConfigError for a device that is not there.
    Cost: reads the folder twice.
    """
    path, target = Path(folder), resolve_device(device)
    card = _read_card(path)
    for name, expected in card.files.items():
        try:
            found = file_entry(path / name)
        except OSError as error:
            raise DataError(f"{path / name} cannot be read ({error}): save the model anew") from error
        if found != expected:
            raise DataError(
                f"{path / name} has {found.num_bytes} bytes of SHA-256 {found.sha256[:12]}…, written were "
                f"{expected.num_bytes} of {expected.sha256[:12]}…: it was changed or damaged; save the model anew"
            )
    reader = ContentsReader(path, path.name)
    try:
        tables = reader.tables(())
        network = IntentRec.of(reader.weights(tables.domain, tables.item_table))
        catalogue = Catalogue.load(path / ITEMS)
        successors = reader.successors(len(tables.vocabulary)) if SUCCESSORS in card.files else None
    except BundleError as error:
        raise DataError(f"{path} is no sound model: {error.fault.value}: {error.detail}") from error
    return Model(
        network=network.to(target),
        domain_text=tables.domain_text,
        vocabulary=tables.vocabulary,
        catalogue=catalogue,
        item_table=tables.item_table,
        trained_until_ms=card.trained_until_ms,
        successors=successors,
    )


def _read_card(path: Path) -> _Card:
    try:
        data = (path / CARD).read_bytes()
    except OSError as error:
        what = "a bundle that workers serve, not a saved model" if (path / MANIFEST).is_file() else "no saved model"
        raise DataError(f"{path} is {what}: {CARD} cannot be read ({error}); give a folder of Model.save") from error
    try:
        card = msgspec.json.decode(data, type=_Card)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{path / CARD} is damaged ({error}): save the model anew") from error
    if card.format != MODEL_FORMAT:
        raise DataError(f"{path / CARD} has format {card.format}, this code reads {MODEL_FORMAT}: train the model anew")
    if set(card.files) - {SUCCESSORS} != set(MODEL_FILES):
        raise DataError(f"{path / CARD} lists {', '.join(sorted(card.files))}; expected: {', '.join(MODEL_FILES)}")
    return card


def _refuse_foreign(target: Path) -> None:
    """Refuses to replace anything but a saved model or an empty folder: a mistyped path must not cost a home folder."""
    if not target.exists() and not target.is_symlink():
        return
    if not target.is_dir() or target.is_symlink():
        raise ConfigError(f"{target} is no folder; allowed: a new folder, an empty one, or a saved model to replace")
    found = {entry.name for entry in target.iterdir()}
    foreign = sorted(found - {*MODEL_FILES, SUCCESSORS, CARD})
    if found and (foreign or CARD not in found):
        shown = (foreign or sorted(found))[0]
        raise ConfigError(
            f"{target} holds {shown} and is no saved model; allowed: a new folder, an empty one, or a saved model to replace"
        )


def _put_in_place(temporary: Path, target: Path) -> None:
    """Renames a complete folder to ``target``; an older model there is moved aside, and back again when the rename fails."""
    if not target.exists():
        rename_durably(temporary, target.absolute())
        return
    replaced = target.absolute().with_name(f".replaced-{uuid.uuid4().hex}")
    target.rename(replaced)
    try:
        rename_durably(temporary, target.absolute())
    except OSError:
        replaced.rename(target)
        raise
    shutil.rmtree(replaced, ignore_errors=True)
