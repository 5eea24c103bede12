"""How far the data of a bundle have moved away from those of the bundle before it.

The drift of a field is the share of plays (or items) that would have to change their label for the two distributions to be
equal: the total variation distance, from 0 to 1, less what two samples of these sizes differ by chance. A missing label counts
as a label, so a key that a producer no longer sends is drift.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from intentrec_core.domain.spec import Domain, Rule
from intentrec_core.plays.profile import DataProfile, FieldProfile

#: From here on, drift is a warning.
DRIFT_WARNING = 0.2
#: Their distribution is that of the hours in which the plays happen to lie.
_CALENDAR = (Rule.HOUR_OF_DAY, Rule.DAY_OF_WEEK)


def drift(domain: Domain, before: DataProfile, after: DataProfile) -> dict[str, float]:
    """The drift of each field by name, and of each filter as ``filter_<key>``, from 0 to 1.

    What the two profiles do not have in common, as after a change of the domain or of a field's labels, is left out.
    """
    calendar = {field.name for field in domain.fields if field.rule in _CALENDAR}
    older = {field.name: field for field in before.fields}
    found: dict[str, float] = {}
    for field in after.fields:
        was = older.get(field.name)
        if was is not None and field.name not in calendar and _same_labels(was, field):
            found[field.name] = max(_distance(was.plays, field.plays), _distance(was.items, field.items))
    filters = {one.name: one for one in before.filters}
    for one in after.filters:
        if one.name in filters:
            earlier = filters[one.name]
            has_data = [
                (before.num_items - earlier.num_items, earlier.num_items),
                (after.num_items - one.num_items, one.num_items),
            ]
            has_sent = [
                (before.num_plays - earlier.num_plays, earlier.num_plays),
                (after.num_plays - one.num_plays, one.num_plays),
            ]
            found[f"filter_{one.name}"] = max(
                _distance(*has_data), _distance(*has_sent), abs(one.shown - earlier.shown)
            )
    return found


def _same_labels(before: FieldProfile, after: FieldProfile) -> bool:
    """Whether the labels mean the same; of a profile of an earlier release, only their number is known."""
    named = before.declared and after.declared
    return before.declared == after.declared if named else len(before.plays) == len(after.plays)


def warnings(moved: Mapping[str, float]) -> list[str]:
    """One line for each field or filter whose drift is large."""
    return [
        f"{name} has drifted by {ratio:.0%} of its plays or items since the previous bundle: look for a change of the "
        "producers or of the catalogue"
        for name, ratio in sorted(moved.items(), key=lambda item: -item[1])
        if ratio > DRIFT_WARNING
    ]


def _distance(before: Sequence[int], after: Sequence[int]) -> float:
    num_before, num_after = sum(before), sum(after)
    if not num_before or not num_after:
        return 0.0
    p, q = np.array(before) / num_before, np.array(after) / num_after
    # The expected distance of two samples of one distribution is at most this: half the sum over labels of the mean absolute
    # difference, sqrt(2/pi * p * (1/n + 1/m)), which is largest where all labels are equally frequent.
    by_chance = math.sqrt(np.count_nonzero(p + q) * (1 / num_before + 1 / num_after) / (2 * math.pi))
    return max(0.0, float(np.abs(p - q).sum()) / 2 - by_chance)
