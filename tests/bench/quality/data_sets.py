"""What is measured on. Each data set is known by a hash of its plays and its catalogue, which every row of the table names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from intentrec_core.datasets.movielens import fetch_movielens
from intentrec_core.datasets.named import RECORDED_SETS, is_present, load_recorded
from intentrec_core.domain.toml import load_domain
from intentrec_core.evaluation.protocols import Protocol, leave_one_out, streaming, temporal
from intentrec_core.evaluation.task import EvaluationData
from intentrec_core.experiment.data import digest
from intentrec_core.features.catalogue import Catalogue
from intentrec_core.features.features import FeatureBuilder
from intentrec_core.features.vocabulary import ItemTable, Vocabulary
from intentrec_core.history.history import EventLayout
from intentrec_core.plays.members import pack_members
from intentrec_core.simulation.simulate import World, start_in_the_past
from stream.settings import Settings

#: The simulated world of the table: members, items and plays are part of its name and never tuned.
WORLD_PLAYS, WORLD_MEMBERS, WORLD_ITEMS, WORLD_SEED = 60_000, 1_500, 2_000, 3
QUICK_PLAYS, QUICK_MEMBERS, QUICK_ITEMS = 3_000, 100, 200


@dataclass(frozen=True, slots=True)
class Loaded:
    """A data set in memory. ``universe``: what is ranked, in words. ``vocabulary`` and ``table``: items by row."""

    name: str
    domain: str
    plays: pa.Table
    catalogue: Catalogue
    digest: str
    data: EvaluationData
    vocabulary: Vocabulary
    table: ItemTable

    @property
    def universe(self) -> str:
        """What every ranker ranks, in words."""
        return f"{int(self.data.universe.sum()):,} items: all that are played in the data set, at whatever time"


@dataclass(frozen=True, slots=True)
class Measured:
    """A data set and the protocols that it is measured by.

    ``hides_history``: whether items that a member has played are hidden from every ranker. ``world`` makes the simulated world
    that the plays are the first of.
    """

    name: str
    title: str
    domain: str
    load: Callable[[Path | None], tuple[pa.Table, Catalogue]]
    protocols: tuple[Callable[[EvaluationData], Protocol], ...]
    hides_history: bool
    recorded: str | None = None
    world: Callable[[], World] | None = None

    def is_present(self, data_root: Path | None) -> bool:
        """Whether it can be loaded here."""
        return self.recorded is None or is_present(self.recorded, data_root)

    def loaded(self, data_root: Path | None) -> Loaded:
        """Loads it. Rows go to items in the order of their first play."""
        plays, catalogue = self.load(data_root)
        domain = load_domain(self.domain)
        vocabulary = Vocabulary.build(dict.fromkeys(plays.column("item_id").to_pylist()))
        table = ItemTable(domain, vocabulary, catalogue)
        members = pack_members(EventLayout(domain), plays)
        universe = np.arange(len(vocabulary)) > 0
        features = FeatureBuilder(domain, vocabulary, table)
        data = EvaluationData.of(members, features, universe, hides_history=self.hides_history)
        return Loaded(self.name, self.domain, plays, catalogue, digest(plays, catalogue), data, vocabulary, table)


def simulated(num_plays: int, members: int, items: int, *, informative: bool = True) -> World:
    """A simulated world of video, with the table's seed, of which so many plays are taken."""
    start_ms = start_in_the_past(num_plays, members)
    return World("video", members, items, WORLD_SEED, informative=informative, start_ms=start_ms)


def world_plays(num_plays: int, members: int, items: int, *, informative: bool = True) -> tuple[pa.Table, Catalogue]:
    """The plays of a simulated world and its catalogue by then."""
    world = simulated(num_plays, members, items, informative=informative)
    plays, _ = world.table(num_plays)
    return plays, Catalogue(world.catalogue(int(plays.column("ts_ms")[-1].as_py()) + 1))


def _movielens(_: Path | None) -> tuple[pa.Table, Catalogue]:
    found = fetch_movielens(Settings.load().cache_dir)
    return found.plays, found.catalogue


def _recorded(name: str) -> Callable[[Path | None], tuple[pa.Table, Catalogue]]:
    def load(data_root: Path | None) -> tuple[pa.Table, Catalogue]:
        found = load_recorded(name, data_root)
        return found.plays, found.catalogue

    return load


def _world(*, informative: bool) -> Callable[[Path | None], tuple[pa.Table, Catalogue]]:
    return lambda _: world_plays(WORLD_PLAYS, WORLD_MEMBERS, WORLD_ITEMS, informative=informative)


_WORLD_TITLE = (
    f"simulated world, {WORLD_PLAYS:,} plays, {WORLD_MEMBERS:,} members, {WORLD_ITEMS:,} items, seed {WORLD_SEED}"
)

DATA_SETS = (
    Measured(
        name="world",
        title=_WORLD_TITLE,
        domain="video",
        load=_world(informative=True),
        protocols=(
            lambda data: temporal(data, test_ratio=0.3),
            lambda data: temporal(data, test_ratio=0.3, knows_time=False),
            lambda data: streaming(data, refresh_plays=4_000, first_ratio=0.7),
        ),
        hides_history=False,
        world=lambda: simulated(WORLD_PLAYS, WORLD_MEMBERS, WORLD_ITEMS),
    ),
    Measured(
        name="world-without-intents",
        title=f"{_WORLD_TITLE}, whose intents say nothing",
        domain="video",
        load=_world(informative=False),
        protocols=(lambda data: temporal(data, test_ratio=0.3),),
        hides_history=False,
    ),
    Measured(
        name="movielens",
        title="MovieLens-100K",
        domain="movielens",
        load=_movielens,
        protocols=(
            lambda data: temporal(data, test_ratio=0.3),
            lambda data: temporal(data, test_ratio=0.3, knows_time=False),
        ),
        hides_history=True,
    ),
    Measured(
        name="movietweetings",
        title=RECORDED_SETS["movietweetings"].title,
        domain="movietweetings",
        load=_recorded("movietweetings"),
        protocols=(
            lambda data: temporal(data, test_ratio=0.2),
            lambda data: temporal(data, test_ratio=0.2, knows_time=False),
            lambda data: streaming(data, refresh_plays=4_000, first_ratio=0.8),
        ),
        hides_history=True,
        recorded="movietweetings",
    ),
    Measured(
        name="beauty",
        title=f"{RECORDED_SETS['beauty'].title}, 5-core",
        domain="beauty",
        load=_recorded("beauty"),
        protocols=(leave_one_out,),
        hides_history=True,
        recorded="beauty",
    ),
    Measured(
        name="kuairand-pure",
        title=RECORDED_SETS["kuairand-pure"].title,
        domain="kuairand",
        load=_recorded("kuairand-pure"),
        protocols=(
            lambda data: temporal(data, test_ratio=0.2),
            lambda data: streaming(data, refresh_plays=50_000, first_ratio=0.8),
        ),
        hides_history=True,
        recorded="kuairand-pure",
    ),
)

QUICK = (
    Measured(
        name="quick-world",
        title=f"simulated world, {QUICK_PLAYS:,} plays, {QUICK_MEMBERS:,} members: to try the harness",
        domain="video",
        load=lambda _: world_plays(QUICK_PLAYS, QUICK_MEMBERS, QUICK_ITEMS),
        protocols=(
            lambda data: temporal(data, test_ratio=0.3),
            lambda data: temporal(data, test_ratio=0.3, knows_time=False),
            lambda data: streaming(data, refresh_plays=500, first_ratio=0.7),
            leave_one_out,
        ),
        hides_history=False,
        world=lambda: simulated(QUICK_PLAYS, QUICK_MEMBERS, QUICK_ITEMS),
    ),
)
