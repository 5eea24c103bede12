"""Drafts a domain file from a study of the data: which columns are intents, fields and filters, and why.

A draft is checked as `train` checks a domain: what has no label or only one among the plays to learn from is no intent, and a
filter that hides everything is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from intentrec_core.domain.spec import Domain
from intentrec_core.domain.toml import MAX_NUMBER, RESERVED_NAMES, parse_domain
from intentrec_core.errors import DataError
from intentrec_core.features.catalogue import Catalogue
from intentrec_core.features.features import FeatureBuilder
from intentrec_core.features.vocabulary import ItemTable, Vocabulary
from intentrec_core.own_data.column_study import CONSTANT, ColumnSource, ColumnStudy, DataStudy, study
from intentrec_core.own_data.domain_text import Value, comment_lines, table_text
from intentrec_core.plays.findings import Finding, findings
from intentrec_core.plays.profile import measure

#: More intents than people can look at: the best of them. With fewer, columns that cannot be predicted fill up.
_MAX_INTENTS, _MIN_INTENTS = 4, 2
#: Below this skill the last label says no more of the next one than chance does.
_SKILL = 0.05
#: Labels of an intent that people can look at, and of a field: the most frequent ones. Others count as missing.
_MAX_INTENT_LABELS, _MAX_LABELS = 48, 256
#: Of how many plays an intent has to have a label; of how many a field.
_INTENT_COVERAGE, _FIELD_COVERAGE = 0.3, 0.05
#: Fewer plays a value: the values are ids.
_PLAYS_PER_VALUE = 3.0
#: Attributes of so many values an item are names of items.
_NAMING = 0.5
#: More different numbers are bucketed.
_MAX_NUMBERS = 12
_NUM_BUCKETS = 6
#: The share of plays that `train` learns from by default: labels have to occur there.
TRAINED_SHARE = 0.7
#: Repeats: below this share of the plays, what was played is hidden; from the other one on, own items are worth learning.
_FEW_REPEATS, _MANY_REPEATS = 0.05, 0.1
#: A number that is called an id names something.
_ID = re.compile(r"(id|ids|code)$", re.IGNORECASE)
_AVAILABLE = re.compile(r"avail|stock|active|enabled|live|online|visible|published|sellable", re.IGNORECASE)
#: Of the items played, this share needs a value before a filter that fails closed is switched on.
_KNOWN = 0.95
#: A filter by the member's value is proposed where it holds at this share of the plays.
_HOLDS = 0.98


@dataclass(frozen=True, kw_only=True)
class _Table:
    """A table of the draft. ``score``: how much it would be worth as an intent; 0 where it can be none. ``is_predicted``:
    the member's last label says something of the next one.
    """

    values: Mapping[str, Value]
    comment: str
    score: float = 0.0
    is_predicted: bool = False
    is_intent: bool = False
    name: str = ""
    key: str = ""


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A domain file as text, the domain that it is, and what is doubtful about it, as `train` would say it.

    ``columns``: a line on each column, with whether it became an intent, a field, or nothing, and why.
    """

    text: str
    domain: Domain
    doubts: tuple[Finding, ...]
    columns: tuple[tuple[ColumnStudy, str], ...]


def draft_domain(name: str, plays: pa.Table, catalogue: Catalogue, source: str) -> Draft:
    """Drafts the domain ``name`` of plays (schema PLAYS, event-time order) and their items. ``source`` is named in a comment.

    Raises: DataError when there are too few plays to tell, or nothing in them differs that could be an intent.
    """
    if plays.num_rows < 2:
        raise DataError(f"{source}: {plays.num_rows} plays: a domain is drafted from what many plays hold; import more")
    seen = study(plays, catalogue)
    fields, became = _fields(seen)
    filters = list(_filters(seen))
    learned = plays.slice(0, max(1, int(plays.num_rows * TRAINED_SHARE)))
    while True:
        chosen = _with_intents(fields)
        if not any(table.is_intent for table in chosen):
            raise DataError(
                f"{source}: nothing in these plays could be an intent: no action, context or attribute of an item has several "
                "values that come back; add one, for instance a category to the items"
            )
        text = _text(name, source, seen, chosen, filters)
        domain = parse_domain(text, f"the draft of {name}")
        doubts = _findings(domain, plays, catalogue)
        errors = [doubt.text for doubt in (*_findings(domain, learned, catalogue), *doubts) if doubt.is_error]
        if not errors:
            break
        fields, filters = _without(errors[0], fields, filters)
    intents = {head.name for head in domain.heads}
    told = tuple((column, _became(column, what, fields, intents)) for column, what in became)
    return Draft(text=text, domain=domain, doubts=tuple(doubts), columns=told)


def _became(column: ColumnStudy, what: str, fields: Sequence[_Table], intents: set[str]) -> str:
    of = next((table for table in fields if table.name == what), None)
    if of is None:
        return what
    return f"intent {what}" if what in intents else f"field {what}"


def _findings(domain: Domain, plays: pa.Table, catalogue: Catalogue) -> list[Finding]:
    vocabulary = Vocabulary.build(plays.column("item_id").unique().to_pylist())
    table = ItemTable(domain, vocabulary, catalogue)
    return findings(domain, measure(FeatureBuilder(domain, vocabulary, table), table, plays))


def _without(wrong: str, fields: list[_Table], filters: list[_Table]) -> tuple[list[_Table], list[_Table]]:
    """The draft without what an error of the data profile is about.

    Raises: DataError for an error that is about something else.
    """
    for at, table in enumerate(fields):
        if wrong.startswith(f"intent {table.name} ") and table.score:
            return [*fields[:at], replace(table, score=0.0), *fields[at + 1 :]], filters
    kept = [table for table in filters if not wrong.startswith(f"filter {table.values['kind']} {table.key} ")]
    if len(kept) == len(filters):
        raise DataError(f"the draft is not usable: {wrong}")
    return fields, kept


def _with_intents(fields: Sequence[_Table]) -> list[_Table]:
    """The tables, with the best of them as intents, and these first."""
    able = sorted(
        (table for table in fields if table.score > 0), key=lambda table: (not table.is_predicted, -table.score)
    )
    num_predicted = sum(table.is_predicted for table in able)
    best = able[: min(_MAX_INTENTS, max(_MIN_INTENTS, num_predicted))]
    intents = [replace(table, is_intent=True, values={**table.values, "intent": True}) for table in best]
    return [*intents, *(table for table in fields if table not in best)]


def _fields(seen: DataStudy) -> tuple[list[_Table], list[tuple[ColumnStudy, str]]]:
    """A table for each column that can be a field, and what became of every column."""
    tables: list[_Table] = []
    became: list[tuple[ColumnStudy, str]] = []
    names: set[str] = {*RESERVED_NAMES, "contact", "gap", "hour_of_day"}
    for column in seen.columns:
        if column.source is ColumnSource.RULE:
            table = _table(
                "contact",
                {"kind": "categorical", "source": "rule", "rule": "first_contact", "values": ["first", "later"]},
                column,
                f"Whether the member plays the item for the first time: {seen.repeats:.1%} of the plays are later ones.",
                _score(column),
            )
            tables.append(table)
            became.append((column, table.name))
            continue
        found = _field(seen, column, _free_name(column.key, names))
        if isinstance(found, str):
            became.append((column, found))
        else:
            table, used = found
            names.add(table.name)
            tables.append(table)
            became.append((used, table.name))
    return [*tables, *_clock_rules(seen)], became


def _field(seen: DataStudy, column: ColumnStudy, name: str) -> tuple[_Table, ColumnStudy] | str:
    """The field that reads a column, and the column by the labels of the field; else why there is none."""
    source: dict[str, Value] = {"source": column.source.value, "key": column.key}
    num_known = int((column.codes >= 0).sum())
    if column.coverage < _FIELD_COVERAGE:
        return f"left out: only {column.coverage:.1%} of the plays have it"
    if column.is_constant and column.coverage >= CONSTANT:
        return f"left out: {column.values[0][0]!r:.40} at {column.largest:.1%} of the plays"
    numbers, what = column.days, "A date: the days from it to the play."
    if numbers is not None:
        source = {"source": "rule", "rule": "time_since_release", "key": column.key}
    elif column.numbers is not None and len(column.values) > _MAX_NUMBERS and not _ID.search(column.key):
        numbers, what = column.numbers, f"A number: buckets that each hold about a {_NUM_BUCKETS}th of the plays."
    if numbers is not None:
        if _are_numbered(column):
            return f"left out: {len(column.values):,} values at {num_known:,} plays, which are ids"
        edges = _edges(numbers)
        if not edges:
            return "left out: its numbers are nearly all the same"
        buckets = seen.bucketed(column, np.where(np.isnan(numbers), -1, np.digitize(numbers, edges)))
        # A number of the play is no intent: what it will be at the next play says little of what is wanted.
        score = _score(buckets) if column.source is ColumnSource.ITEM else 0.0
        return _table(name, {"kind": "bucketed", **source, "edges": edges}, buckets, what, score), buckets
    if column.key == "duration_s":
        return "left out: durations of a few values"
    if num_known < _PLAYS_PER_VALUE * len(column.values):
        return f"left out: {len(column.values):,} values at {num_known:,} plays, which are ids"
    is_name = column.source is ColumnSource.ITEM and not column.has_lists and len(column.values) > _MAX_NUMBERS
    if is_name and len(column.values) > _NAMING * seen.num_items:
        return f"left out: {len(column.values):,} values of {seen.num_items:,} items, which are names"
    labels = [label for label, _ in column.values if label]
    few, many = labels[:_MAX_INTENT_LABELS], labels[:_MAX_LABELS]
    covered = {num: float(((column.codes >= 0) & (column.codes < num)).mean()) for num in (len(few), len(many))}
    can_be_intent = len(labels) == len(few) or covered[len(few)] >= _INTENT_COVERAGE
    used = few if can_be_intent else many
    if covered[len(used)] < _FIELD_COVERAGE:
        return f"left out: its {len(used)} most frequent of {len(labels):,} values are at {covered[len(used)]:.1%} of the plays"
    kind = "multi_label" if column.has_lists else "categorical"
    what = (
        f"Its {len(used)} most frequent of {len(labels):,} values; the others count as missing."
        if len(used) < len(labels)
        else ""
    )
    score = _score(column) * covered[len(used)] if can_be_intent and covered[len(used)] >= _INTENT_COVERAGE else 0.0
    return _table(name, {"kind": kind, **source, "values": _sorted(used)}, column, what, score), column


def _are_numbered(column: ColumnStudy) -> bool:
    """Whether the numbers of plays name something: whole ones that do not come back."""
    if column.numbers is None or column.source is not ColumnSource.PLAY:
        return False
    known = column.numbers[np.isfinite(column.numbers)]
    return bool((known == np.floor(known)).all()) and len(known) < 1.5 * len(column.values)


def _score(column: ColumnStudy) -> float:
    """How much a column is worth as an intent: how well it is predicted, and how much its labels say; 0 where it can be none."""
    if column.is_constant or column.coverage < _INTENT_COVERAGE:
        return 0.0
    # What is done says more of an intent than how well it can be guessed.
    of_actions = 1.0 if _is_action(column) else 0.0
    return of_actions + max(0.0, column.skill) + 0.1 * min(1.0, column.entropy_bits / 4)


def _is_action(column: ColumnStudy) -> bool:
    return column.key == "action" and column.source is ColumnSource.PLAY


def _table(name: str, values: Mapping[str, Value], column: ColumnStudy, what: str, score: float) -> _Table:
    """The table of a field, with what was measured as its comment."""
    measured = (
        f"At {column.coverage:.1%} of the plays; the most frequent label has {column.largest:.1%}, the entropy is "
        f"{column.entropy_bits:.1f} bits. The same as last time is right at {column.hits:.1%}, the most frequent at "
        f"{column.frequent:.1%} of the next plays: skill {column.skill:+.2f}."
    )
    comment = f"{what} {measured}".strip()
    return _Table(
        name=name,
        key=column.key,
        values={"name": name, **values},
        comment=comment,
        score=score,
        is_predicted=_is_action(column) or column.skill >= _SKILL,
    )


def _clock_rules(seen: DataStudy) -> Iterator[_Table]:
    gap: Mapping[str, Value] = {
        "name": "gap", "kind": "bucketed", "source": "rule", "rule": "gap", "edges": [60, 600, 1800, 86_400, 604_800],
    }  # fmt: skip
    yield _Table(name="gap", values=gap, comment="Seconds since the member's play before.")
    hour: Mapping[str, Value] = {"name": "hour_of_day", "kind": "categorical", "source": "rule", "rule": "hour_of_day"}
    yield _Table(name="hour_of_day", values=hour, comment="In UTC.")


def _filters(seen: DataStudy) -> Iterator[_Table]:
    """Filters that the data speak for: nothing is played twice, or nearly every item says whether it is available."""
    if seen.repeats < _FEW_REPEATS:
        yield _Table(
            values={"kind": "watched"},
            comment=f"Hides what the member has played: only {seen.repeats:.1%} of the plays are of an item played before.",
        )
    for column in seen.columns:
        if column.source is ColumnSource.ITEM and column.is_truth and _AVAILABLE.search(column.key):
            shown = sum(count for label, count in column.values if label.lower() in ("true", "1"))
            if column.coverage >= _KNOWN and shown:
                yield _Table(
                    key=column.key,
                    values={"kind": "available", "key": column.key},
                    comment=f"Shows an item only while {column.key} is true: so it was at {shown / column.num_plays:.1%} of the "
                    "plays. An item without a value is not shown.",
                )


def _proposals(seen: DataStudy, filters: Sequence[_Table]) -> Iterator[str]:
    """Filters that somebody has to decide on, commented out."""
    if not any(table.values["kind"] == "watched" for table in filters):
        yield table_text(
            "[[filter]]",
            {"kind": "watched"},
            f"Would hide what the member has played. {seen.repeats:.1%} of the plays are of such items, so it is off.",
            is_proposal=True,
        )
    of_plays = [
        column
        for column in seen.columns
        if column.source is ColumnSource.PLAY and column.key not in ("action", "duration_s")
    ]
    for of_item in seen.columns:
        if of_item.source is not ColumnSource.ITEM:
            continue
        for play in of_plays:
            is_number = play.numbers is not None and of_item.numbers is not None
            if not (is_number or of_item.has_lists):
                continue
            holds = seen.pairs(play, of_item)
            if holds is None or holds < _HOLDS:
                continue
            admits = f"{of_item.key} is at most {play.key}" if is_number else f"{of_item.key} lists {play.key}"
            yield table_text(
                "[[filter]]",
                {"kind": "at_most" if is_number else "contains", "key": of_item.key, "event_key": play.key},
                f"Would show an item only where its {admits} of the member: so it is at {holds:.1%} of the plays. "
                "Switch it on if other items must not be shown; a member without the value is then shown nothing.",
                is_proposal=True,
            )


def _text(name: str, source: str, seen: DataStudy, fields: Sequence[_Table], filters: Sequence[_Table]) -> str:
    median, most, all_ = seen.plays_per_member
    window = int(min(256, max(16, 2 ** int(np.ceil(np.log2(max(2, most) / 2))))))
    watched = int(min(4096, max(256, 2 ** int(np.ceil(np.log2(max(2, all_)))))))
    head = [
        *comment_lines(
            f"Drafted by `intentrec domain init` from {seen.num_plays:,} plays of {seen.num_members:,} members in {source}. Each "
            "comment says what was found. Change what you know better; docs/data.md has every key."
        ),
        f'name = "{name}"',
        "",
        *comment_lines(
            f"Half of the members have {median:,} plays or more, one in ten {most:,} or more, the most active {all_:,}."
        ),
        "[history]",
        f"window = {window}",
        f"watched = {watched}",
        *comment_lines(f"{seen.openings:.0%} of the plays open a session if it ends after half an hour."),
        "session_gap_s = 1800",
        "",
        *comment_lines(
            f"{seen.has_durations:.0%} of the plays have a duration."
            + (" A long one counts for more." if _weighs(seen) else " All plays count alike.")
        ),
        "[duration_weight]",
        f'kind = "{"log" if _weighs(seen) else "none"}"',
        *([f"scale_s = {_duration_scale(seen):g}"] if _weighs(seen) else []),
        "",
        *comment_lines(f"{seen.repeats:.1%} of the plays are of an item that the member has played before."),
        "[first_model]",
        f"own_items = {'true' if seen.repeats >= _MANY_REPEATS else 'false'}",
        "",
    ]
    parts = [table_text("[[field]]", table.values, table.comment) for table in fields]
    parts += [table_text("[[filter]]", table.values, table.comment) for table in filters]
    parts += _proposals(seen, filters)
    return "\n".join([*head, "\n".join(parts)])


def _weighs(seen: DataStudy) -> bool:
    """Whether durations say how much a play counts: most plays have one, and they differ."""
    found = next(
        (column for column in seen.columns if column.key == "duration_s" and column.source is ColumnSource.PLAY), None
    )
    return found is not None and found.coverage >= 0.5 and found.largest < 0.9


def _duration_scale(seen: DataStudy) -> float:
    found = next(column for column in seen.columns if column.key == "duration_s" and column.source is ColumnSource.PLAY)
    assert found.numbers is not None
    return max(1.0, _rounded(float(np.nanmedian(found.numbers))))


def _edges(numbers: NDArray[np.float64]) -> list[float]:
    """Rising limits of buckets that hold about as many plays each; none where nearly all numbers are the same."""
    known = numbers[np.isfinite(numbers) & (np.abs(numbers) <= MAX_NUMBER)]
    if not len(known):
        return []
    quantiles = np.quantile(known, np.arange(1, _NUM_BUCKETS) / _NUM_BUCKETS)
    edges = sorted({_rounded(float(edge)) for edge in quantiles})
    return [edge for edge in edges if known.min() < edge <= known.max()]


def _rounded(number: float) -> float:
    """To three digits, so that people can read it."""
    return float(f"{number:.3g}")


def _sorted(labels: Sequence[str]) -> list[str]:
    """Numbers by their value, texts as they stand: by frequency."""
    try:
        return sorted(labels, key=float)
    except ValueError:
        return list(labels)


def _free_name(key: str, taken: set[str]) -> str:
    """A name for a field after its key: lower-case letters, digits and _, at most 32, and not taken."""
    name = re.sub(r"[^a-z0-9]+", "_", key.lower()).strip("_")
    name = name if name[:1].isalpha() else f"field_{name}"
    name = f"field_{name}" if name in RESERVED_NAMES or name.startswith("filter_") else name
    name = name[:28].rstrip("_")
    return next(
        free for number in range(1, 10_000) if (free := name if number == 1 else f"{name[:26]}_{number}") not in taken
    )
