"""A probe play: shows whether an engine can encode at all, without a member."""

from __future__ import annotations

from intentrec_core.engine.engine import Encoded, EncodeRequest, IncrementalEngine
from intentrec_core.engine.member_key import MemberKey
from intentrec_core.history.history import EventLayout

#: No member has this key: partitions are not negative.
_PROBE = MemberKey(-1, "probe")
UNKNOWN_ITEM = "probe"


def encode_probe(engine: IncrementalEngine, layout: EventLayout, item_id: str = UNKNOWN_ITEM) -> Encoded:
    """Encodes one play of an item, by default of one that is not in the vocabulary. Nothing of it stays cached.

    Raises: as :meth:`~intentrec_core.engine.engine.IncrementalEngine.encode`.
    """
    play = layout.pack(item_id=item_id, event_id=_PROBE.user_id, ts_ms=0, duration_s=None, attributes={})
    try:
        return engine.encode([EncodeRequest(_PROBE, 0, play.data, 0)])
    finally:
        engine.forget(_PROBE)
