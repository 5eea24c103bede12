"""What one member's state and cache slot are keyed by."""

from __future__ import annotations

from typing import NamedTuple


class MemberKey(NamedTuple):
    """One member of one source partition.

    The partition is part of the key: a member whose plays move to another partition has other state there, and a partition that
    closes takes all of its members along.
    """

    partition: int
    user_id: str
