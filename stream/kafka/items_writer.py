"""Writes the items topic: one item by hand, or the rows of a catalogue file.

    catalogue file ─ read whole ─▶ differences to the topic ─▶ items put; items of the file that it no longer has, withdrawn

The file is a writer like any other, and the topic holds the catalogue. Only a file that was read whole withdraws anything.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from aiokafka.errors import KafkaError

from intentrec_core.domain.spec import Filter, FilterKind
from intentrec_core.domain.toml import load_domain
from intentrec_core.errors import BrokerError, ConfigError, DataError
from intentrec_core.features.attributes import ALLOWED, number, texts, truth
from intentrec_core.features.catalogue import Catalogue, Item, LeftOut
from intentrec_core.features.release_times import check_release_times
from intentrec_core.limits import MAX_ID_BYTES
from stream.kafka.clients import start_producer
from stream.kafka.items_reader import ItemsReader, several_partitions
from stream.wire.catalogue_record import read_item
from stream.wire.codec import encode
from stream.wire.messages import CatalogueItem

if TYPE_CHECKING:
    from stream.kafka.topic_reader import Records
    from stream.settings import Settings

#: A file that has a smaller share than this of the items that a file put before is taken for a broken export.
MIN_KEPT_RATIO = 0.8
#: And so is one that takes an attribute from a larger share than this of the items, or hides so many more by a filter.
_MAX_LOST_PERCENT = 20
#: Below Kafka's default limit on a record, 1 MiB with its headers.
MAX_ITEM_BYTES = 1_000_000
_NUM_IN_FLIGHT = 2_000
_MAX_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class SyncPlan:
    """What a file changes: ``put`` values by key, and keys to ``withdraw``.

    ``held``: ids that the file has and that were withdrawn by hand, and so stay withdrawn. ``kept``: ids that were put by hand
    and stay so, because their rows are those of the last sync; of these, ``noted`` are records that get the digest of the row.
    ``over_hand``: ids that were put by hand and are put now, because their rows have changed. ``unfit``: rows that no record can
    hold, by id, with the reason; what the topic has of them stays. ``left_out``: what was not read of the file.
    """

    put: dict[bytes, bytes] = field(default_factory=dict)
    withdraw: list[bytes] = field(default_factory=list)
    noted: dict[bytes, bytes] = field(default_factory=dict)
    held: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    over_hand: list[str] = field(default_factory=list)
    unfit: dict[str, str] = field(default_factory=dict)
    left_out: Sequence[LeftOut] = ()
    num_same: int = 0

    def line(self) -> str:
        """The plan as one line of text."""
        text = f"{len(self.put)} items put, {len(self.withdraw)} withdrawn, {self.num_same} unchanged"
        if self.held:
            text += f", {len(self.held)} withdrawn by hand before and left so ({_named(self.held)})"
        if self.kept:
            text += f", {len(self.kept)} put by hand before and left so, since their rows are as before ({_named(self.kept)})"
        if self.over_hand:
            text += (
                f", {len(self.over_hand)} of them over what was put by hand, since their rows changed "
                f"({_named(self.over_hand)})"
            )
        if self.unfit:
            reasons = [f"{item_id}: {reason}" for item_id, reason in self.unfit.items()]
            text += f", {len(self.unfit)} left out because no record can hold them ({_named(reasons)})"
        if _has_unread_rows(self.left_out):
            text += "; none can be withdrawn, because rows of the file were left out: correct them"
        return text


def plan_sync(
    file: str,
    rows: Iterable[Item],
    known: Mapping[str, CatalogueItem],
    *,
    left_out: Sequence[LeftOut] = (),
    filters: Sequence[Filter] = (),
    allow_shrink: bool = False,
) -> SyncPlan:
    """Compares the rows of a file with the items of the topic. ``left_out`` says what was not read of the file. If that is a
    whole row, nothing is withdrawn, because the row may have been any item's. ``filters`` are the domain's.

    Raises: DataError when the file is empty; or, unless that is allowed explicitly, when it has less than four fifths of the
    items that a file put before, by their ids, takes an attribute from more than a fifth of the items that both have, or would
    hide by a filter more than a fifth of those that it can show, or all items.
    """
    plan, num_same, seen = SyncPlan(), 0, set[str]()
    compared = _Compared(filters, known.values())
    for row in rows:
        seen.add(row.item_id)
        before = known.get(row.item_id)
        if before is not None and before.withdrawn:
            plan.held.append(row.item_id)
            continue
        item = CatalogueItem(item_id=row.item_id, title=row.title, attributes=dict(row.attributes), written_by="file")
        try:
            value = _encoded(item)
        except ValueError as error:
            plan.unfit[row.item_id] = str(error)
            continue
        if before is not None and before.written_by != "file":
            digest = _row_digest(item)
            if before.file_row in (None, digest):  # unknown: put by another program, or by an earlier release
                plan.kept.append(row.item_id)
                if before.file_row is None:
                    plan.noted[row.item_id.encode()] = _encoded(msgspec.structs.replace(before, file_row=digest))
                continue
            plan.over_hand.append(row.item_id)
        compared.add(before, row.attributes)
        if before is not None and _encoded(before) == value:
            num_same += 1
        else:
            plan.put[row.item_id.encode()] = value
    of_file = [item_id for item_id, item in known.items() if item.written_by == "file"]
    if not seen:
        raise DataError(
            f"{file}: no items, so nothing was changed; items are withdrawn one by one: intentrec items withdraw"
        )
    num_kept = len(seen.intersection(of_file))
    if num_kept < MIN_KEPT_RATIO * len(of_file) and not allow_shrink:
        raise DataError(
            f"{file}: it has {num_kept} of the {len(of_file)} items on the topic that came from a file: one with less than "
            f"{MIN_KEPT_RATIO:.0%} of them changes nothing. If it is right: intentrec items sync --allow-shrink"
        )
    problem = compared.problem()
    if problem and not allow_shrink:
        raise DataError(f"{file}: {problem}. If the file is right: intentrec items sync --allow-shrink")
    if not _has_unread_rows(left_out):
        plan.withdraw.extend(item_id.encode() for item_id in of_file if item_id not in seen)
    return replace(plan, left_out=tuple(left_out), num_same=num_same)


class _Compared:
    """What the rows of a file say, against what the topic says of the same items: attribute by attribute, and for each filter
    whether it could let the item through.
    """

    def __init__(self, filters: Sequence[Filter], known: Iterable[CatalogueItem]) -> None:
        self._filters = [rule for rule in filters if rule.kind is not FilterKind.WATCHED]
        #: By attribute of a ``contains`` filter, the values on the topic: a value that no item had is one that no member names.
        self._values: dict[str, set[str]] = {
            rule.key: set() for rule in self._filters if rule.kind is FilterKind.CONTAINS
        }
        for item in known:
            for key, values in self._values.items():
                values.update(_named_values((item.attributes or {}).get(key)))
        self._num_rows = self._num_both = 0
        self._had, self._has = Counter[str](), Counter[str]()
        self._passed, self._passes, self._in_file = Counter[str](), Counter[str](), Counter[str]()

    def add(self, before: CatalogueItem | None, attributes: Mapping[str, Any]) -> None:
        """Counts a row, and the item of the topic that it would replace."""
        passes = [rule.key for rule in self._filters if self._can_pass(rule, attributes)]
        self._num_rows += 1
        self._in_file.update(passes)
        if before is not None:
            was = before.attributes or {}
            self._num_both += 1
            self._had.update(_given(was))
            self._has.update(_given(attributes))
            self._passed.update(rule.key for rule in self._filters if self._can_pass(rule, was))
            self._passes.update(passes)

    def problem(self) -> str:
        """Why the file must not be believed; empty when it may be."""
        for rule in self._filters:
            name, had, has = f"filter {rule.kind.value} {rule.key}", self._passed[rule.key], self._passes[rule.key]
            if self._num_rows and not self._in_file[rule.key]:
                return (
                    f"{name} would hide every item: no row has {_data_of(rule)}; nothing was changed: correct the data"
                )
            if 100 * (had - has) > _MAX_LOST_PERCENT * had:
                return (
                    f"{name} would hide {had - has} of the {had} items of the topic that it can show: their rows do not have "
                    f"{_data_of(rule)}. A file that hides more than {_MAX_LOST_PERCENT} % of them changes nothing: correct the "
                    "data"
                )
        lost = [
            name
            for name, num in self._had.items()
            if 100 * (num - self._has[name]) > _MAX_LOST_PERCENT * self._num_both
        ]
        if not lost:
            return ""
        shown = [f"{name!a} in {self._has[name]}, on the topic in {self._had[name]}" for name in lost]
        return (
            f"of the {self._num_both} items that the topic has too, fewer have the attribute {_named(shown)}: a filter that "
            f"reads it would hide the others. A file that takes it from more than {_MAX_LOST_PERCENT} % of them changes nothing: "
            "give them a value"
        )

    def _can_pass(self, rule: Filter, attributes: Mapping[str, Any]) -> bool:
        """Whether the filter shows an item of these attributes to any member."""
        value = attributes.get(rule.key)
        if rule.kind is FilterKind.AVAILABLE:
            return truth(value) is True
        if rule.kind is FilterKind.AT_MOST:
            return not math.isnan(number(value))
        values, known = _named_values(value), self._values[rule.key]
        return bool(values) and (not known or not known.isdisjoint(values))


def _data_of(rule: Filter) -> str:
    """What an item needs so that a filter can show it."""
    return {
        FilterKind.AVAILABLE: "true or 1",
        FilterKind.AT_MOST: "a number",
        FilterKind.CONTAINS: "a text, or a list of texts, that the topic's items have too",
        FilterKind.WATCHED: "",
    }[rule.kind]


def _named_values(value: Any) -> set[str]:
    return {text for text in texts(value) if text.strip()}


def _given(attributes: Mapping[str, Any]) -> Iterator[str]:
    """The names of the attributes that have a value."""
    return (name for name, value in attributes.items() if _named_values(value))


def _has_unread_rows(left_out: Sequence[LeftOut]) -> bool:
    return any(not found.attribute for found in left_out)


async def sync_items(settings: Settings, file: Path, *, allow_shrink: bool = False) -> SyncPlan:
    """Makes the topic hold the rows of a catalogue file, and returns what was changed.

    Items that were put by hand stay, unless the file has a row for them that has changed since it was last copied: then the file
    counts. An item that was withdrawn by hand stays withdrawn until it is put by hand; so does what is written by hand while the
    file is copied. A record without a value withdraws an item until the next write, whenever it comes: a file that has the item
    puts it again. Killed in between, the next call does the rest.

    Raises: DataError when the file cannot be read or must not be believed: then nothing is changed; BrokerError.
    """
    catalogue = await asyncio.to_thread(Catalogue.load, file)
    domain = load_domain(settings.domain)
    try:
        catalogue = check_release_times(catalogue, domain)
    except DataError as error:
        raise DataError(f"{file}: {error}") from error
    async with ItemsReader(settings) as topic:
        known = await topic.everything()
        left_out = catalogue.left_out
        plan = await asyncio.to_thread(
            plan_sync,
            str(file),
            catalogue,
            known,
            left_out=left_out,
            filters=domain.filters,
            allow_shrink=allow_shrink,
        )
        written: dict[bytes, bytes | None] = {**plan.put, **plan.noted, **dict.fromkeys(plan.withdraw)}
        while written:
            await write_records(settings, written.items())
            # What was written by hand since the last look at the topic: the file must not undo it.
            written = await _overwritten_by_hand(written, topic.to_the_end())
    return plan


async def _overwritten_by_hand(
    written: Mapping[bytes, bytes | None], since: AsyncIterator[Records]
) -> dict[bytes, bytes | None]:
    """What was put or withdrawn by hand and then overwritten, by key: values that must be written again.

    ``written``: the values by which it was overwritten. ``since``: all records since the topic was compared, these included.
    """
    by_hand: dict[bytes, bytes | None] = {}
    lost: dict[bytes, bytes | None] = {}
    async for records in since:
        for key, value in ((record.key, record.value) for record in records if record.key in written):
            if value != written[key]:
                # The newest record of another writer counts, and after ours it stands as it is.
                by_hand.pop(key, None)
                lost.pop(key, None)
                if _is_by_hand(key, value):
                    by_hand[key] = value
            elif key in by_hand:
                lost[key] = by_hand.pop(key)
    return lost


def _is_by_hand(key: bytes, value: bytes | None) -> bool:
    try:
        item = read_item(key, value)
    except ValueError:
        return False
    return item is not None and (item.written_by != "file" or bool(item.withdrawn))


async def put_item(settings: Settings, item: Item) -> int:
    """Puts an item by hand; returns the offset of its record.

    Raises: ConfigError when no record or no bundle can hold it, or its release is in another unit; BrokerError.
    """
    try:
        catalogue = Catalogue([item])
        check_release_times(catalogue, load_domain(settings.domain))
    except DataError as error:
        raise ConfigError(str(error)) from error
    for found in catalogue.left_out:
        raise ConfigError(f"item {item.item_id!r}, {found.attribute}: {found.reason}; allowed: {ALLOWED}")
    (item,) = catalogue
    put = CatalogueItem(item_id=item.item_id, title=item.title, attributes=dict(item.attributes))
    _record(put)
    async with ItemsReader(settings) as topic:
        before = (await topic.everything()).get(item.item_id)
    return await _write_one(settings, msgspec.structs.replace(put, file_row=_file_row(before)))


async def withdraw_item(settings: Settings, item_id: str) -> int:
    """Withdraws an item by hand; returns the offset of its record. While the topic is the same one, a list with
    this or a higher offset does not have the item.

    Raises: as :func:`put_item`.
    """
    return await _write_one(settings, CatalogueItem(item_id=item_id, withdrawn=True))


async def had_item(settings: Settings, item_id: str, offset: int) -> bool:
    """Whether the topic had the item before this offset, shown or withdrawn by hand. Raises: BrokerError."""
    key, had = item_id.encode(), False
    async with ItemsReader(settings) as topic:
        async for records in topic.to_the_end():
            for record in records:
                if record.key == key and record.offset < offset:
                    had = bool(record.value)
    return had


def _file_row(before: CatalogueItem | None) -> str | None:
    """What a record by hand keeps of the file's row, of the record that it replaces."""
    if before is None:
        return ""
    return _row_digest(before) if before.written_by == "file" and not before.withdrawn else before.file_row


def _row_digest(item: CatalogueItem) -> str:
    """A digest of title and attributes, in whatever order the file has them."""
    row = msgspec.json.encode([item.title, item.attributes], order="sorted")
    return hashlib.blake2b(row, digest_size=8).hexdigest()


async def _write_one(settings: Settings, item: CatalogueItem) -> int:
    (offset,) = await write_records(settings, [_record(item)])
    return offset


def _record(item: CatalogueItem) -> tuple[bytes, bytes]:
    """Key and value of a record that is written by hand. Raises: ConfigError."""
    try:
        key, value = item.item_id.encode(), _encoded(item)
        if not 1 <= len(key) <= MAX_ID_BYTES:
            raise ValueError(f"an item_id of {len(key)} bytes; allowed: 1 to {MAX_ID_BYTES}")
    except ValueError as error:
        raise ConfigError(f"item {item.item_id[:40]!r}: {error}") from error
    return key, value


async def write_records(settings: Settings, records: Iterable[tuple[bytes, bytes | None]]) -> list[int]:
    """Writes records in their order, and returns their offsets once the broker has acknowledged all of them.

    Raises: BrokerError when the broker refuses them, or the topic has not one partition.
    """
    producer = await start_producer(settings)
    offsets: list[int] = []
    sent: list[asyncio.Future[Any]] = []
    try:
        num_partitions = len(await producer.partitions_for(settings.items_topic))
        if num_partitions != 1:
            raise several_partitions(settings, num_partitions)
        for key, value in records:
            sent.append(await producer.send(settings.items_topic, value, key=key, partition=0))
            if len(sent) >= _NUM_IN_FLIGHT:
                offsets += [record.offset for record in await asyncio.gather(*sent)]
                sent.clear()
        offsets += [record.offset for record in await asyncio.gather(*sent)]
    except KafkaError as error:
        raise BrokerError(
            f"the broker {settings.broker} refused items of topic {settings.items_topic}: {error!r}; write them again"
        ) from error
    finally:
        await producer.stop()
    return offsets


def _encoded(item: CatalogueItem) -> bytes:
    """The value of a record. Raises: ValueError when the item does not fit into one."""
    try:
        value = encode(item)
    except (TypeError, OverflowError, UnicodeEncodeError, RecursionError, msgspec.MsgspecError) as error:
        raise ValueError(f"cannot be written as JSON: {error}") from error
    if len(value) > MAX_ITEM_BYTES:
        raise ValueError(f"{len(value)} bytes as JSON; allowed: {MAX_ITEM_BYTES}")
    return value


def _named(texts: list[str]) -> str:
    return ", ".join(texts[:_MAX_NAMED]) + (", …" if len(texts) > _MAX_NAMED else "")
