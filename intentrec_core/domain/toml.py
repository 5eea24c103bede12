"""Reads and validates a domain file. Every error names the file, the field and the allowed values."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from enum import StrEnum
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from intentrec_core.domain.spec import (
    DEFAULT_EPOCHS,
    MAX_EPOCHS,
    Domain,
    DurationWeight,
    Field,
    FieldKind,
    FieldSource,
    Filter,
    FilterKind,
    FirstModelDefaults,
    Rule,
    json_bytes,
)
from intentrec_core.errors import ConfigError, DomainError
from intentrec_core.times import EARLIEST_MS, END_MS, LOWEST_EARLIEST_MS, iso_time, parse_time

_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
_Choice = TypeVar("_Choice", bound=StrEnum)

MAX_NUMBER = 2**53
#: A member's number is stored in 32 bits.
MAX_STORED_NUMBER = 3.4e38
#: Bytes that names and labels may take in one output: it has to fit into a Kafka record of 1 MiB, with room for ids.
MAX_NAMES_BYTES = 900_000
#: Eight plays of a history are one record of the changelog. This is far more than a model can use.
MAX_FIELDS = 1000
RESERVED_NAMES = ("item_hash", "event_hash", "ts_ms", "duration_s")
#: A head with more than 4,096 labels is a vocabulary, not an intent: its projection would be larger than the encoders.
MAX_LABELS = 4096


def shipped_domains() -> list[str]:
    """Names of the domains that come with the package."""
    folder = resources.files("intentrec_core") / "domain"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def domain_text(name_or_path: str | Path) -> str:
    """The TOML text of a shipped domain or of a domain file.

    Raises: ConfigError when the argument is neither, or the file cannot be read.
    """
    if str(name_or_path) in shipped_domains():
        return (resources.files("intentrec_core") / "domain" / f"{name_or_path}.toml").read_text("utf-8")
    path = Path(name_or_path)
    if not path.is_file():
        raise ConfigError(
            f"no domain {name_or_path!s}: give the path of a domain file, or one of {', '.join(shipped_domains())}"
        )
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error


def load_domain(name_or_path: str | Path) -> Domain:
    """Loads a shipped domain by name, or a domain file by path.

    Raises: ConfigError when there is no such domain or file; DomainError when it is not valid.
    """
    return parse_domain(domain_text(name_or_path), str(name_or_path))


def parse_domain(text: str, file: str) -> Domain:
    """Parses and validates the TOML text of a domain. ``file`` is the name used in error messages.

    Raises: DomainError with the first problem found.
    """
    try:
        table = _Table(tomllib.loads(text), file, "")
    except tomllib.TOMLDecodeError as error:
        raise DomainError(file, "(file)", f"not TOML: {error}", "a TOML document") from error
    history = table.table("history")
    weight = table.table("duration_weight", required=False)
    first_model = table.table("first_model", required=False)
    fields = tuple(_field(row) for row in table.rows("field", required=True))
    filters = tuple(_filter(row, fields) for row in table.rows("filter"))
    domain = Domain(
        name=table.name("name"),
        window=history.integer("window", 2, 4096),
        watched=history.integer("watched", 0, 65_536, default=256),
        session_gap_s=history.number("session_gap_s", 1, 86_400 * 7, default=1800.0),
        short_term_window_s=history.number("short_term_window_s", 1, 86_400 * 366, default=604_800.0),
        max_future_s=history.number("max_future_s", 0, 86_400 * 366, default=300.0),
        earliest_ms=history.time_ms("earliest", LOWEST_EARLIEST_MS, END_MS, default=EARLIEST_MS),
        fields=fields,
        filters=filters,
        duration_weight=weight.choice("kind", DurationWeight, default=DurationWeight.NONE),
        duration_scale_s=weight.number("scale_s", 1e-3, 1e9, default=600.0),
        duration_weight_min=weight.number("min", 0, 1e3, default=0.2),
        duration_weight_max=weight.number("max", 0, 1e3, default=3.0),
        first_model=FirstModelDefaults(
            epochs=first_model.integer("epochs", 1, MAX_EPOCHS, default=DEFAULT_EPOCHS),
            own_items=first_model.flag("own_items"),
        ),
    )
    for part in (table, history, weight, first_model):
        part.refuse_unknown()
    names = [field.name for field in fields]
    for name in names:
        if names.count(name) > 1:
            raise DomainError(file, f"field {name}", "declared twice", "each name once")
    for kind, event_key in _repeated_filters(filters):
        raise DomainError(file, f"filter {kind}", f"declared twice for {event_key or 'the item'}", "each once")
    if not domain.heads:
        raise DomainError(file, "field", "no field is an intent", "at least one field with intent = true")
    _check_sizes(domain, file)
    if domain.duration_weight_min > domain.duration_weight_max:
        raise DomainError(file, "duration_weight.min", "above max", "min <= max")
    return domain


def _check_sizes(domain: Domain, file: str) -> None:
    """Refuses a domain whose outputs or histories could be larger than what Kafka takes."""
    for key, declared in (("field", domain.fields), ("filter", domain.filters)):
        if len(declared) > MAX_FIELDS:
            raise DomainError(file, key, f"{len(declared)} are declared", f"at most {MAX_FIELDS}")
    by_head = {head.name: head.message_bytes for head in domain.heads}
    # The message names the likeliest label again.
    again = max(json_bytes(label) for head in domain.heads for label in head.label_names)
    if sum(by_head.values()) + again > MAX_NAMES_BYTES:
        largest = max(by_head, key=lambda name: by_head[name])
        raise DomainError(
            file,
            f"field {largest}",
            f"its labels take {by_head[largest]} bytes of an intent update, all intents {sum(by_head.values()) + again}",
            f"at most {MAX_NAMES_BYTES} bytes in all: declare fewer or shorter labels",
        )
    if (filters := sum(rule.message_bytes for rule in domain.filters)) > MAX_NAMES_BYTES:
        raise DomainError(file, "filter", f"their keys take {filters} bytes", f"at most {MAX_NAMES_BYTES} bytes in all")


def _repeated_filters(filters: Sequence[Filter]) -> list[tuple[str, str]]:
    """Second and further watched filters, and member values used by two filters: a play stores one value per key."""
    kinds = [("watched", "") for f in filters if f.kind is FilterKind.WATCHED]
    kinds += [(f.kind.value, f.event_key) for f in filters if f.event_key]
    keys = [key or kind for kind, key in kinds]
    return [kind for kind, key in zip(kinds, keys, strict=True) if keys.count(key) > 1]


def _field(row: _Table) -> Field:
    name = row.name("name")
    row.where = f"field {name}"
    if name in RESERVED_NAMES or name.startswith("filter_"):
        raise row.error(
            "name", repr(name), f"any name but {', '.join(RESERVED_NAMES)} and filter_…, which histories use"
        )
    source = row.choice("source", FieldSource)
    rule = row.choice("rule", Rule) if source is FieldSource.RULE else None
    kind = row.choice("kind", FieldKind)
    needs_key = source is not FieldSource.RULE or rule is Rule.TIME_SINCE_RELEASE
    key = row.text("key", default=name) if source is not FieldSource.RULE else row.text("key", default="")
    if needs_key and not key:
        raise row.error("key", "missing", "the catalogue attribute with the release time")
    if kind is FieldKind.CATEGORICAL and source is FieldSource.EVENT and key == "duration_s":
        raise row.error("kind", "categorical", "bucketed: a duration is a number")
    if kind is FieldKind.MULTI_LABEL and source is not FieldSource.CATALOGUE:
        raise row.error("kind", "multi_label from a play", "multi_label only with source = catalogue")
    values, edges, labels = row.texts("values"), row.numbers("edges"), row.texts("labels")
    if rule in (Rule.HOUR_OF_DAY, Rule.DAY_OF_WEEK):
        count = 24 if rule is Rule.HOUR_OF_DAY else 7
        values = values or tuple(str(i) for i in range(count))
        if kind is not FieldKind.CATEGORICAL or len(values) != count:
            raise row.error("values", f"{len(values)} values", f"categorical with {count} values, or none")
    if rule is Rule.FIRST_CONTACT and (kind is not FieldKind.CATEGORICAL or len(values) != 2):
        raise row.error("values", f"{len(values)} values", "categorical with two values: first contact, later contact")
    if rule in (Rule.GAP, Rule.TIME_SINCE_RELEASE) and kind is not FieldKind.BUCKETED:
        raise row.error("kind", kind.value, "bucketed")
    if kind is FieldKind.BUCKETED:
        if not edges or any(low >= high for low, high in pairwise(edges)):
            raise row.error("edges", f"{list(edges)}", "one or more rising numbers")
        if labels and len(labels) != len(edges) + 1:
            raise row.error("labels", f"{len(labels)} labels", f"{len(edges) + 1}: one more than edges")
        if len(set(labels)) != len(labels):
            raise row.error("labels", f"{list(labels)}", "different texts: each is the name of one intent")
        if values:
            raise row.error("values", "given", "edges (and labels) for a bucketed field")
    elif not values or len(set(values)) != len(values) or len(values) > MAX_LABELS:
        raise row.error("values", f"{len(values)} values", f"1 to {MAX_LABELS} different texts")
    elif edges or labels:
        raise row.error("edges" if edges else "labels", "given", "values for a categorical or multi_label field")
    field = Field(
        name=name,
        kind=kind,
        source=source,
        key=key,
        rule=rule,
        values=values,
        edges=edges,
        labels=labels,
        intent=row.flag("intent"),
    )
    row.refuse_unknown()
    return field


def _filter(row: _Table, fields: Sequence[Field]) -> Filter:
    kind = row.choice("kind", FilterKind)
    row.where = f"filter {kind.value}"
    head = row.text("unless_head", default="")
    unless = row.texts("unless_values")
    key, event_key = row.text("key", default=""), row.text("event_key", default="")
    if kind is FilterKind.WATCHED:
        heads = {field.name: field for field in fields if field.intent}
        if bool(head) != bool(unless):
            raise row.error("unless_head", repr(head), "unless_head and unless_values together, or neither")
        if head and head not in heads:
            raise row.error("unless_head", head, f"an intent head: {', '.join(heads)}")
        if head and not set(unless) <= set(heads[head].label_names):
            raise row.error("unless_values", f"{list(unless)}", f"labels of {head}: {heads[head].label_names}")
    elif not key:
        raise row.error("key", "missing", "the catalogue attribute that decides")
    if kind in (FilterKind.AT_MOST, FilterKind.CONTAINS) and not event_key:
        raise row.error("event_key", "missing", "the key of play.context with the member's value")
    default = _filter_default(row, kind) if "default" in row.values else None
    filter_ = Filter(kind=kind, key=key, event_key=event_key, default=default, unless_head=head, unless_values=unless)
    row.refuse_unknown()
    return filter_


def _filter_default(row: _Table, kind: FilterKind) -> float | str | None:
    """What holds for a member who has not said otherwise. A filter without a value of the member's has no such key."""
    if kind is FilterKind.AT_MOST:
        return row.number("default", -MAX_STORED_NUMBER, MAX_STORED_NUMBER)
    if kind is FilterKind.CONTAINS:
        value = row.text("default")
        if not value:
            raise row.error("default", "''", "a text that items list, or no default")
        return value
    return None


class _Table:
    """One TOML table while it is read: returns values, records which keys were read, and names the key in errors."""

    def __init__(self, values: Mapping[str, Any], file: str, where: str) -> None:
        self.values, self.file, self.where = values, file, where
        self._taken: set[str] = set()

    def error(self, key: str, problem: str, allowed: str) -> DomainError:
        return DomainError(self.file, f"{self.where}.{key}" if self.where else key, problem, allowed)

    def _take(self, key: str, default: Any, allowed: str) -> Any:
        self._taken.add(key)
        if key not in self.values:
            if default is None:
                raise self.error(key, "missing", allowed)
            return default
        return self.values[key]

    def table(self, key: str, *, required: bool = True) -> _Table:
        value = self._take(key, None if required else {}, "a table")
        if not isinstance(value, Mapping):
            raise self.error(key, "not a table", "a table")
        return _Table(value, self.file, key)

    def rows(self, key: str, *, required: bool = False) -> list[_Table]:
        value = self._take(key, None if required else [], f"one or more [[{key}]]")
        if (
            not isinstance(value, list)
            or not all(isinstance(row, Mapping) for row in value)
            or (required and not value)
        ):
            raise self.error(key, "not a list of tables", f"one or more [[{key}]]")
        return [_Table(row, self.file, f"{key}[{i}]") for i, row in enumerate(value)]

    def text(self, key: str, *, default: str | None = None) -> str:
        value = self._take(key, default, "a text")
        if not isinstance(value, str):
            raise self.error(key, repr(value), "a text")
        return value

    def name(self, key: str) -> str:
        value = self.text(key)
        if not _NAME.fullmatch(value):
            raise self.error(key, repr(value), "lower-case letters, digits and _, beginning with a letter, at most 32")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        value = self._take(key, (), "a list of texts")
        if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) and item for item in value):
            raise self.error(key, repr(value), "a list of texts")
        return tuple(value)

    def numbers(self, key: str) -> tuple[float, ...]:
        value = self._take(key, (), "a list of numbers")
        if not isinstance(value, (list, tuple)) or not all(_is_number(item) for item in value):
            raise self.error(key, repr(value), "a list of finite numbers")
        return tuple(float(item) for item in value)

    def number(self, key: str, low: float, high: float, *, default: float | None = None) -> float:
        value = self._take(key, default, f"{low:g} to {high:g}")
        if not _is_number(value) or not low <= value <= high:
            raise self.error(key, repr(value), f"a number, {low:g} to {high:g}")
        return float(value)

    def integer(self, key: str, low: int, high: int, *, default: int | None = None) -> int:
        value = self._take(key, default, f"a whole number, {low} to {high}")
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.error(key, repr(value), f"a whole number, {low} to {high}")
        return value

    def time_ms(self, key: str, low_ms: int, end_ms: int, *, default: int) -> int:
        allowed = f"a date such as 1990-01-01, from {iso_time(low_ms)[:10]} up to {iso_time(end_ms)[:10]}"
        self._taken.add(key)
        if key not in self.values:
            return default
        value = self.values[key]
        try:
            # A TOML date or time is a Python date or datetime. Both write themselves as ISO 8601.
            ts_ms = parse_time(value if isinstance(value, str) else value.isoformat())
        except (ValueError, AttributeError):
            raise self.error(key, repr(value), allowed) from None
        if not low_ms <= ts_ms < end_ms:
            raise self.error(key, str(value), allowed)
        return ts_ms

    def flag(self, key: str) -> bool:
        value = self._take(key, False, "true or false")
        if not isinstance(value, bool):
            raise self.error(key, repr(value), "true or false")
        return value

    def choice(self, key: str, choices: type[_Choice], *, default: _Choice | None = None) -> _Choice:
        allowed = ", ".join(choice.value for choice in choices)
        value = self._take(key, default, allowed)
        try:
            return choices(value)
        except ValueError as error:
            raise self.error(key, repr(value), allowed) from error

    def refuse_unknown(self) -> None:
        """Refuses keys that were never read, so that a misspelt option is not silently ignored."""
        for key in self.values:
            if key not in self._taken:
                raise self.error(key, "unknown key", ", ".join(sorted(self._taken)))


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) <= MAX_NUMBER if isinstance(value, int) else math.isfinite(value)
