"""The columns of :mod:`intentrec_core.features.play_counts`, for what needs to know their number and nothing compiled."""

from __future__ import annotations

from intentrec_core.features.buckets import DAY_S

#: An hour, a day, a week, a month.
DECAYS_S = (3_600.0, DAY_S, 7 * DAY_S, 30 * DAY_S)
#: One per decay, and the age.
NUM_COLUMNS = len(DECAYS_S) + 1
#: The column of a day.
DAY_COLUMN = DECAYS_S.index(DAY_S)
