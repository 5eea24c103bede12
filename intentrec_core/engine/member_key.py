"""The key of one member's state and of what is cached of it."""

from __future__ import annotations

from typing import NamedTuple


class MemberKey(NamedTuple):
    """One member of one source partition.

    The partition is part of the key: a member whose plays move to another partition has separate state there, and a
    partition that is closed takes all of its members' state with it.
    """

    partition: int
    user_id: str
