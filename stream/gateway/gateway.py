"""The parts of one gateway, which its requests share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stream.gateway.access import Access, Caller, Tickets
from stream.gateway.member_states import MemberState, MemberStates
from stream.gateway.rates import RequestRates
from stream.gateway.streams import Streams

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import Request

    from stream.gateway.bundle_follower import BundleFollower
    from stream.gateway.forwarder import Forwarder
    from stream.gateway.ownership import Ownership
    from stream.gateway.plays import PlayCheck, PlaySender
    from stream.gateway.state_store import StateStore
    from stream.gateway.status import PipelineStatus
    from stream.ops.metrics import Metrics
    from stream.settings import Settings


@dataclass(kw_only=True, eq=False)
class Gateway:
    """Owned by the event loop.

    ``is_ready``: whether the members of a partition are known here. ``not_ready``: why the gateway as a whole is not; None if it
    is.
    ``searches``: passes over all items, two at a time.
    """

    settings: Settings
    metrics: Metrics
    access: Access
    tickets: Tickets
    member_rates: RequestRates
    operator_rates: RequestRates
    ownership: Ownership
    states: MemberStates
    streams: Streams
    bundles: BundleFollower
    forwarder: Forwarder
    plays: PlaySender
    status: PipelineStatus
    store: StateStore | None = None
    play_check: PlayCheck
    is_ready: Callable[[int], bool]
    not_ready: Callable[[], str | None]
    is_ending: bool = False
    searches: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(2))

    def count(self, caller: Caller, request: Request) -> None:
        """Counts a request of a client. Raises: Problem (too_many_requests)."""
        rates = self.operator_rates if caller.is_operator else self.member_rates
        address = request.client.host if request.client is not None else ""
        rates.check(address if caller.user_id is None else f"sub {caller.user_id}")

    async def member(self, user_id: str) -> MemberState | None:
        """What is known of a member of this gateway; the store is asked for one who is not in memory."""
        member = self.states.get(user_id)
        if member is None and self.store is not None:
            partition, key = self.ownership.partition_of(user_id), user_id.encode()
            for kind, value in (await self.store.get(user_id)).items():
                self.states.take_stored(kind, partition, key, value)
            member = self.states.get(user_id)
        return member
