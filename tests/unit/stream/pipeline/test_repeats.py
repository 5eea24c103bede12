"""The same plays sent again fold to nothing: no state, no changelog record, no answer."""

from __future__ import annotations

from copy import copy

from intentrec_core.domain.toml import load_domain
from intentrec_core.history.history import EventLayout, History
from intentrec_core.plays.table import PlayRow
from intentrec_core.simulation.simulate import World
from stream.kafka.replay import play_message
from stream.pipeline.folding import FoldedPartition, Folder
from stream.wire.codec import encode
from tests.worlds.bundle_world import Record

NUM_PLAYS, NUM_USERS = 20_000, 120
LAYOUT = EventLayout(load_domain("shop"))


def replayed(plays: list[PlayRow], first_offset: int) -> list[Record]:
    """Plays as `intentrec replay` sends them."""
    return [
        Record(first_offset + place, encode(play_message(row)), row.user_id.encode(), timestamp=row.ts_ms)
        for place, row in enumerate(plays)
    ]


def folded(histories: dict[str, History], records: list[Record]) -> FoldedPartition:
    return Folder(LAYOUT, None).fold(0, histories, records)


def test_a_replay_sent_twice_changes_nothing() -> None:
    """Times are cut to whole minutes, so that members have several plays at one time."""
    world = World("shop", users=NUM_USERS, items=300, seed=3, rate=0.15)
    plays = [play._replace(ts_ms=play.ts_ms // 60_000 * 60_000) for play, _ in world.plays(NUM_PLAYS)]
    histories: dict[str, History] = {}
    assert folded(histories, replayed(plays, 0)).outcomes.num_applied == NUM_PLAYS
    assert sum(history.anchor(LAYOUT) > 0 for history in histories.values()) > 50
    before = {user: copy(history) for user, history in histories.items()}
    second = folded(histories, replayed(plays, NUM_PLAYS))
    counts = second.outcomes
    assert (counts.num_applied, counts.num_duplicates + counts.num_late) == (0, NUM_PLAYS)
    assert len(second.outputs) == counts.num_late
    assert not second.changelog
    assert histories == before


def test_the_older_schema_is_written_where_it_is_asked_for() -> None:
    world = World("shop", users=1, items=300, seed=3)
    plays = [play._replace(ts_ms=1_700_000_000_000 + at) for at, (play, _) in enumerate(world.plays(150))]
    for schema in (1, 2):
        written = Folder(LAYOUT, None, schema).fold(0, {}, replayed(plays, 0)).changelog
        assert {value[0] for value in written.values() if value} == {schema}
