"""Whatever is withdrawn, put, made anew, swapped or restarted: a list has what the items topic has as of the offset it names.

Two bundles with other vocabularies, plays of items that neither knows, items that appear while a bundle is on its way, changes
while a micro-batch waits to be answered. Lists are as long as the catalogue, so that what is missing is seen as well.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from intentrec_core.history.history import History
from stream.pipeline import migration, shown_items
from stream.pipeline.live_catalogue import LiveCatalogue
from stream.pipeline.pipeline import Pipeline
from stream.wire.records import PartitionResult
from tests.worlds.bundle_world import PlayLog, make_pipeline, make_serving
from tests.worlds.item_log import ItemLog
from tests.worlds.pipeline_results import answer_prefill, lists
from tests.worlds.tiny_world import TinyWorld

USERS = ["ann", "ben", "cho"]
NUM_ITEMS = 40
WORLDS = [TinyWorld(num_items=30), TinyWorld(num_items=34)]
FOLDER = tempfile.TemporaryDirectory()
SERVINGS = [make_serving(Path(FOLDER.name), world, world.model(seed)) for seed, world in enumerate(WORLDS)]

item = st.integers(0, NUM_ITEMS - 1)
changes = st.lists(
    st.one_of(
        st.tuples(
            st.just("put"), item, st.fixed_dictionaries({}, optional={"available": st.booleans(), "maturity": item})
        ),
        st.tuples(st.just("withdraw"), item, st.booleans()),
    ),
    min_size=1,
    max_size=5,
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("plays"), st.lists(st.tuples(st.sampled_from(USERS), item), min_size=1, max_size=5)),
        st.tuples(st.just("plays"), st.lists(st.tuples(st.sampled_from(USERS), item), min_size=1, max_size=5)),
        st.tuples(st.just("change"), changes),
        st.tuples(st.just("change before the answer"), changes),
        st.tuples(st.just("make anew"), st.sets(item, min_size=1)),
        st.tuples(st.just("look up"), st.none()),
        st.tuples(st.just("begin"), st.none()),
        st.tuples(st.just("advance"), st.integers(1, 4)),
        st.tuples(st.just("swap"), st.none()),
        st.tuples(st.just("give up"), st.none()),
        st.tuples(st.just("restart"), st.booleans()),
    ),
    min_size=10,
    max_size=40,
)


class Run:
    """A pipeline beside the log of the items topic."""

    def __init__(self, max_added: int) -> None:
        self.max_added = max_added
        self.plays, self.items, self.now_s = PlayLog(), ItemLog(), 100_000.0
        for i in range(0, NUM_ITEMS, 2):
            self.items.put(WORLDS[0].item(i))
        self.played: dict[str, set[str]] = {}
        self.which = 0
        self.start({})

    def start(self, histories: dict[str, History]) -> None:
        for serving in SERVINGS:
            for member in serving.engine.cached_members():
                serving.engine.forget(member)
        catalogue = LiveCatalogue()
        catalogue.apply(self.items.compacted())
        self.pipeline: Pipeline = make_pipeline(
            SERVINGS[self.which], catalogue=catalogue, max_prefill_positions=4, num_recommendations=2 * NUM_ITEMS
        )
        self.pipeline.open_partition(0, histories)
        self.is_moving = False

    def play(self, plays: Sequence[tuple[str, int]], meanwhile: Sequence[tuple[str, int, Any]] = ()) -> None:
        low, offset = len(self.plays.records), len(self.items.records) - 1
        for user, number in plays:
            self.now_s += 60
            self.plays.play(user, number, self.now_s)
        encoded = self.pipeline.encode({0: self.plays.records[low:]})
        if meanwhile:
            self.change(meanwhile)
        self.check(self.pipeline.respond(encoded), offset)

    def change(self, drawn: Sequence[tuple[str, int, Any]]) -> None:
        first = len(self.items.records)
        for kind, number, how in drawn:
            if kind == "put":
                thing = WORLDS[0].item(number)
                self.items.put(thing, title=f"Title {number}.{first}", attributes={**thing.attributes, **how})
            else:
                self.items.withdraw(f"item-{number}", tombstone=how)
        self.pipeline.change_items(self.items.changes(first))

    def make_anew(self, numbers: Collection[int]) -> None:
        """The topic is deleted, and made anew with these items: its offsets begin again."""
        self.items = ItemLog()
        for number in sorted(numbers):
            self.items.put(WORLDS[0].item(number))
        self.pipeline.change_items(replace(self.items.changes(0), is_whole=True))

    def restart(self, rolls_back: bool) -> None:
        self.drain()
        histories = {user: h for user in USERS if (h := self.pipeline.history(0, user)) is not None}
        self.which = 1 - self.which if rolls_back else self.which
        self.start(histories)

    def drain(self) -> None:
        while self.pipeline.num_queued_chunks:
            self.check(answer_prefill(self.pipeline), len(self.items.records) - 1)

    def check(self, results: Sequence[PartitionResult], encoded_at: int) -> None:
        for result in results:
            for answer in lists(result):
                record = self.plays.records[answer.source.offset]
                user, offset = (record.key or b"").decode(), answer.catalogue_offset
                assert offset == encoded_at, "one micro-batch, one offset: that of the last change before it"
                showable = self.items.showable(offset)
                listed = {shown.item_id: shown.title for shown in answer.items}
                assert len(listed) == len(answer.items)
                assert listed.items() <= {item_id: d["title"] for item_id, d in showable.items()}.items()
                # The member's own items are hidden or not by the intent predicted; nothing else may be missing, but for new
                # items beyond the limit.
                missing, new = showable.keys() - self.own(user) - listed.keys(), self.new(answer.bundle, offset)
                assert missing <= new
                assert len(missing) <= max(0, len(new) - self.max_added)

    def new(self, bundle: str, offset: int) -> set[str]:
        """The items that the bundle does not know."""
        (vocabulary,) = (serving.vocabulary for serving in SERVINGS if serving.version == bundle)
        return {item_id for item_id in self.items.as_of(offset) if not vocabulary.row(item_id)}

    def own(self, user: str) -> set[str]:
        values = b"".join(record.value or b"" for record in self.plays.records if record.key == user.encode())
        return {f"item-{number}" for number in range(NUM_ITEMS) if f'"item-{number}"'.encode() in values}


@settings(max_examples=60, deadline=None)
@given(drawn=steps, max_added=st.sampled_from([2, 100]))
def test_a_list_has_what_the_topic_has_as_of_its_offset(drawn: list[tuple[str, Any]], max_added: int) -> None:
    with patch.object(migration, "CHUNK_ON_CPU", 2), patch.object(shown_items, "MAX_ADDED", max_added):
        run = Run(max_added)
        for step, argument in drawn:
            coming = SERVINGS[1 - run.which]
            match step:
                case "plays":
                    run.play(argument)
                case "change":
                    run.change(argument)
                case "change before the answer":
                    run.play([(user, 2) for user in USERS], meanwhile=argument)
                case "make anew":
                    run.make_anew(argument)
                case "look up" if not run.is_moving:
                    run.pipeline.look_up(coming)
                case "begin" if not run.is_moving:
                    run.pipeline.start_migration(coming)
                    run.is_moving = True
                case "advance" if run.is_moving:
                    for _ in range(argument):
                        run.pipeline.step_migration()
                case "swap":
                    run.pipeline.swap(coming)
                    run.which, run.is_moving = 1 - run.which, False
                case "give up":
                    run.pipeline.abort_migration()
                    run.is_moving = False
                case "restart":
                    run.restart(argument)
        run.play([(user, 1) for user in USERS])
        run.drain()
