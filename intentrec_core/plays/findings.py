"""What is wrong with a data profile: errors, which make an intent or a filter meaningless, and warnings.

    error     an intent without a known label, or with one label at every play; a filter that shows nothing to anybody
    warning   the same of a field that is no intent; values that nothing reads; data that most plays or items lack

Each finding is one line: what was found, an example of it, and the remedy. Too few plays to tell make a warning at most.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from intentrec_core.domain.spec import Domain, DurationWeight, Field, FieldKind, FieldSource, Filter, FilterKind
from intentrec_core.errors import DataError
from intentrec_core.plays.profile import DataProfile, FieldProfile, FilterProfile

#: From so many plays on, one label alone is no accident of a short sample.
ENOUGH_PLAYS = 100
DAY_S = 86_400
#: From this share on, one label leaves hardly anything to learn.
CONSTANT_RATIO = 0.99
#: Below this share, a known label or value is the exception.
RARE_RATIO = 0.05
#: Above this share, empty lists are more than a few members who have only begun.
EMPTY_RATIO = 0.01
#: Up to this share, items above every member's limit may be those that no member of a sample may see.
ABOVE_LIMITS_RATIO = 0.5
#: Above this share, values that nothing reads are no typing mistakes in single rows.
UNREAD_RATIO = 0.01


@dataclass(frozen=True, slots=True)
class Finding:
    """One line about a profile. An error makes an intent or a filter meaningless."""

    is_error: bool
    text: str


def findings(domain: Domain, profile: DataProfile) -> list[Finding]:
    """Everything that is wrong with the profile, errors first."""
    found = list(_of_plays(domain, profile))
    for field, seen in zip(domain.fields, profile.fields, strict=True):
        found += _of_field(field, seen, profile)
    rules = [rule for rule in domain.filters if rule.kind is not FilterKind.WATCHED]
    of_filters = [
        one for rule, seen in zip(rules, profile.filters, strict=True) for one in _of_filter(rule, seen, profile)
    ]
    if not profile.shown and profile.num_items and not any(one.is_error for one in of_filters):
        keys = ", ".join(rule.key for rule in rules)
        of_filters.append(
            Finding(True, f"the filters {keys} together show no item to any member: correct the data of one of them")
        )
    found += of_filters
    found += _of_exceptions(domain, profile)
    return sorted(found, key=lambda finding: not finding.is_error)


def errors(domain: Domain, profile: DataProfile) -> list[str]:
    """The errors alone."""
    return [finding.text for finding in findings(domain, profile) if finding.is_error]


def refuse_meaningless(domain: Domain, profile: DataProfile, file: str = "") -> None:
    """Raises: DataError with every error of the profile, and the name of the domain or of its ``file``."""
    found = errors(domain, profile)
    if found:
        raise DataError(f"domain {file or domain.name}: {'; '.join(found)}")


def _of_plays(domain: Domain, profile: DataProfile) -> Iterator[Finding]:
    total = profile.num_plays + profile.num_repeats
    if profile.num_repeats > RARE_RATIO * total:
        yield _warning(
            f"{profile.num_repeats:,} of {total:,} plays repeat an event_id of their member and count as the same play: "
            "give each play its own event_id"
        )
    if domain.duration_weight is not DurationWeight.NONE and profile.num_plays:
        yield from _of_durations(profile)
    if profile.median_duration_s > DAY_S:
        yield _warning(
            f"half of the plays last {profile.median_duration_s:,.0f} s or more, which is over a day: duration_s is in seconds; "
            "divide milliseconds by 1,000"
        )


def _of_durations(profile: DataProfile) -> Iterator[Finding]:
    """Durations that weight nothing, or hardly a play."""
    remedy = 'send what each play lasted, or declare kind = "none"'
    known = profile.num_durations
    if not known:
        yield _warning(f"no play has a duration_s, by which [duration_weight] weights plays: {remedy}")
    elif known < RARE_RATIO * profile.num_plays:
        yield _warning(
            f"{known:,} of {profile.num_plays:,} plays have a duration_s, by which [duration_weight] weights plays: {remedy}"
        )
    elif profile.num_plays > 1 and profile.num_usual_durations >= CONSTANT_RATIO * known:
        yield _warning(
            f"duration_s is {profile.usual_duration_s:g} at {profile.num_usual_durations:,} of {known:,} plays, so that "
            f"[duration_weight] weights them all alike: {remedy}"
        )


def _of_field(field: Field, seen: FieldProfile, profile: DataProfile) -> Iterator[Finding]:
    name = f"{'intent' if field.intent else 'field'} {field.name}"
    num_known = profile.num_plays - seen.plays[0]
    if not profile.num_plays:
        return
    if not num_known:
        yield Finding(field.intent, f"{name} has no known label at any play: {_why_unknown(field, seen, profile)}")
        return
    # Of a field that is no intent, a missing label says something too, if there are some.
    always = _always(field, seen, num_known)
    if always and (field.intent or seen.plays[0] <= (1 - CONSTANT_RATIO) * profile.num_plays):
        yield Finding(
            field.intent and profile.num_plays >= ENOUGH_PLAYS,
            f"{name} has the same {always}, {_all(num_known)} where it is known: {_remedy(field)}",
        )
    elif field.intent and (nearly := _always(field, seen, num_known, CONSTANT_RATIO)):
        yield _warning(
            f"{name} has the same {nearly}, at nearly all {num_known:,} plays where it is known: {_remedy(field)}"
        )
    elif num_known < RARE_RATIO * profile.num_plays:
        yield _warning(
            f"{name} is known at {num_known / profile.num_plays:.1%} of the plays only: {_why_unknown(field, seen, profile)}"
        )
        return
    total = profile.num_items if field.source is FieldSource.CATALOGUE else profile.num_plays
    if seen.num_unread > UNREAD_RATIO * total:
        of = "items" if field.is_item_label else "plays"
        yield _warning(
            f"{name}: {seen.num_unread:,} {of} have a value for {field.key!r} that is none of its labels, for instance "
            f"{', '.join(seen.examples)}; allowed: {_allowed(field)}"
        )


def _all(num: int) -> str:
    return f"at all {num:,} plays" if num > 1 else "at the one play"


def _always(field: Field, seen: FieldProfile, num_known: int, ratio: float = 1.0) -> str:
    """The labels that a field has at this share of the plays where it is known, if it has the others at the rest at most."""
    often, seldom = ratio * num_known, (1 - ratio) * num_known
    if not all(count >= often or count <= seldom for count in seen.plays[1:]):
        return ""
    names = [repr(name) for name, count in zip(field.label_names, seen.plays[1:], strict=True) if count >= often]
    return f"label{'s' * (len(names) > 1)}, {' and '.join(names)}" if names else ""


def _why_unknown(field: Field, seen: FieldProfile, profile: DataProfile) -> str:
    """What is the matter with a field that is hardly ever known, and the remedy."""
    if seen.num_unread:
        of = "items" if field.is_item_label else "plays"
        return (
            f"{seen.num_unread:,} {of} have a value for {field.key!r} that is none of its labels, for instance "
            f"{', '.join(seen.examples)}; allowed: {_allowed(field)}; correct the data, or key and values in the domain"
        )
    if field.is_item_label:
        return f"{_no_attribute(field.key, profile.num_items - seen.items[0], profile)}; {_remedy(field)}"
    if field.source is FieldSource.EVENT:
        where = field.key if field.key in ("action", "duration_s") else f"context.{field.key}"
        return f"no play has a value for {where}; send it, {_remedy(field)}"
    return f"its rule finds nothing in these plays; {_remedy(field)}"


def _no_attribute(key: str, num_items: int, profile: DataProfile) -> str:
    """Why an attribute says nothing. ``num_items``: how many of the items have a value of it that can be read."""
    if not profile.num_described:
        return f"none of the {profile.num_items:,} items played is in the catalogue: check that both have the same item ids"
    if key in profile.attributes:
        if not num_items:
            return f"no item that was played has a value for {key!r}"
        return f"of {profile.num_items:,} items that were played, {num_items:,} have a value for {key!r}"
    names = ", ".join(sorted(profile.attributes)[:20]) or "none"
    return f"no item that was played has the attribute {key!r}: check the key; the catalogue's attributes: {names}"


def _remedy(field: Field) -> str:
    return (
        "correct it in the domain or the data, or declare it without intent = true"
        if field.intent
        else "correct it in the domain or the data, or leave the field out"
    )


def _allowed(field: Field) -> str:
    if field.kind is FieldKind.BUCKETED:
        return "dates in ISO 8601" if field.source is FieldSource.RULE else "numbers"
    shown = ", ".join(field.values[:12])
    return f"{shown}, …" if len(field.values) > 12 else shown


def _of_filter(rule: Filter, seen: FilterProfile, profile: DataProfile) -> Iterator[Finding]:
    name = f"filter {rule.kind.value} {rule.key}"
    if not profile.num_items:
        return
    if not seen.num_items:
        why = _no_attribute(rule.key, 0, profile)
        if seen.num_unread:
            why = (
                f"{seen.num_unread:,} items have a value that cannot be read, for instance {', '.join(seen.examples)}; "
                f"allowed: {_data_of(rule)}"
            )
        yield Finding(True, f"{name} hides every item: {why}; correct key or data, or leave the filter out")
    elif rule.event_key and not seen.num_plays and profile.num_plays:
        yield Finding(
            True,
            f"{name} hides every item from every member: no play has a value for context.{rule.event_key}; send it, or leave "
            "the filter out",
        )
    elif not seen.shown:
        what = (
            "is true for no item"
            if not rule.event_key
            else f"lets no item through for any value of {rule.event_key} in the plays"
        )
        yield Finding(True, f"{name} hides every item: it {what}; correct the data, or leave the filter out")
    else:
        yield from _of_empty_plays(name, rule, seen, profile)
        yield from _of_share(name, rule, seen, profile)
        hidden = profile.num_items - seen.num_items
        if hidden > RARE_RATIO * profile.num_items:
            yield _warning(
                f"{name} hides {hidden:,} of {profile.num_items:,} items from every member: they have no value for it"
                + (
                    f", or one that cannot be read, as {', '.join(seen.examples)}; allowed: {_data_of(rule)}"
                    if seen.examples
                    else ""
                )
            )


def _of_share(name: str, rule: Filter, seen: FilterProfile, profile: DataProfile) -> Iterator[Finding]:
    """A filter that hides nothing, hardly shows anything, or has items that no play's value lets through."""
    # That all items that were played are available says nothing: else they would not have been played.
    if seen.shown == 1.0 and rule.event_key and profile.num_plays >= ENOUGH_PLAYS:
        yield _warning(
            f"{name} hides no item at any play: check that {rule.key!r} says which items may be shown, or leave the filter out"
        )
    elif seen.shown <= RARE_RATIO:
        yield _warning(f"{name} shows {seen.shown:.1%} of the items, as a mean over the plays: check {rule.key!r}")
    few = ABOVE_LIMITS_RATIO if rule.kind is FilterKind.AT_MOST else RARE_RATIO
    if seen.num_unreached > few * profile.num_items:
        yield _warning(
            f"{name} shows {seen.num_unreached:,} of {profile.num_items:,} items at no play, for instance those with "
            f"{', '.join(seen.unreached)}: no context.{rule.event_key} in the plays lets them through; allowed: {_data_of(rule)}"
        )


def _of_empty_plays(name: str, rule: Filter, seen: FilterProfile, profile: DataProfile) -> Iterator[Finding]:
    """Plays at which a filter hides every item, because the member had sent no value, or one that lets none through."""
    if not rule.event_key:
        return
    not_sent = profile.num_plays - seen.num_plays
    if not_sent > EMPTY_RATIO * profile.num_plays:
        yield _warning(
            f"{name} hides every item at {not_sent:,} of {profile.num_plays:,} plays: their members had not sent "
            f"context.{rule.event_key} yet; send it, or give the filter a default"
        )
    sent_in_vain = seen.num_empty - not_sent
    if sent_in_vain > EMPTY_RATIO * profile.num_plays:
        yield _warning(
            f"{name} hides every item at {sent_in_vain:,} of {profile.num_plays:,} plays: no item has data for the value of "
            f"context.{rule.event_key} that their members had sent; check that plays and items spell it the same"
        )


def _data_of(rule: Filter) -> str:
    return {
        FilterKind.AVAILABLE: "true or false, 1 or 0",
        FilterKind.AT_MOST: "numbers",
        FilterKind.CONTAINS: "texts and lists of texts",
        FilterKind.WATCHED: "",
    }[rule.kind]


def _of_exceptions(domain: Domain, profile: DataProfile) -> Iterator[Finding]:
    """Watched filters whose exception never holds."""
    for rule in domain.filters:
        if rule.kind is not FilterKind.WATCHED or not rule.unless_head:
            continue
        head = next(head for head in domain.heads if head.name == rule.unless_head)
        counts = dict(zip(head.label_names, profile.field(head.name).plays[1:], strict=True))
        if profile.num_plays >= ENOUGH_PLAYS and not any(counts[label] for label in rule.unless_values):
            yield _warning(
                f"filter watched: no play has a label {' or '.join(rule.unless_values)} of {head.name}, so that its exception "
                "never holds: check unless_values"
            )


def _warning(text: str) -> Finding:
    return Finding(False, text)
