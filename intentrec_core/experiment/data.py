"""The data of an experiment: plays, the rows of their items, and which of them are ranked."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from intentrec_core.domain.spec import Domain, FilterKind
from intentrec_core.evaluation.results import DataFacts
from intentrec_core.evaluation.task import EvaluationData
from intentrec_core.features.catalogue import Catalogue
from intentrec_core.features.features import FeatureBuilder
from intentrec_core.features.vocabulary import ItemTable, Vocabulary
from intentrec_core.history.history import EventLayout
from intentrec_core.plays.members import pack_members


@dataclass(frozen=True, slots=True)
class ExperimentData:
    """Plays (schema PLAYS, in time order) and their catalogue; ``vocabulary`` and ``table`` have every item that is played, in
    the order of its first play. These are ranked. Items that only a model knows come after them, and are not.
    """

    title: str
    plays: pa.Table
    catalogue: Catalogue
    vocabulary: Vocabulary
    table: ItemTable
    asked: EvaluationData

    @classmethod
    def of(
        cls,
        title: str,
        domain: Domain,
        plays: pa.Table,
        catalogue: Catalogue,
        *,
        hides_played: bool | None = None,
        known_items: Sequence[str] = (),
    ) -> ExperimentData:
        """From tables. ``hides_played``: whether items that a member has played are hidden from every list; None asks
        :func:`never_repeats`. ``known_items``: ids of items that a given model knows.
        """
        played = Vocabulary.build(dict.fromkeys(plays.column("item_id").to_pylist()))
        vocabulary = played.extended(known_items)
        table = ItemTable(domain, vocabulary, catalogue)
        members = pack_members(EventLayout(domain), plays)
        row = np.arange(len(vocabulary))
        universe = (row > 0) & (row < len(played))
        hides = never_repeats(domain) if hides_played is None else hides_played
        features = FeatureBuilder(domain, vocabulary, table)
        asked = EvaluationData.of(members, features, universe, hides_history=hides)
        return cls(title, plays, catalogue, vocabulary, table, asked)

    @property
    def domain(self) -> Domain:
        """What an intent is here."""
        return self.asked.features.domain

    def facts(self) -> DataFacts:
        """What it is, for the results."""
        return DataFacts(
            title=self.title,
            domain=self.domain.name,
            digest=digest(self.plays, self.catalogue),
            plays=self.plays.num_rows,
            members=len(self.asked.members),
            items=int(self.asked.universe.sum()),
        )


def never_repeats(domain: Domain) -> bool:
    """Whether the domain hides what was watched in every case. With an exception members play items again, and to hide them would
    make a miss of every repeat.
    """
    return any(rule.kind is FilterKind.WATCHED and not rule.unless_head for rule in domain.filters)


def digest(plays: pa.Table, catalogue: Catalogue) -> str:
    """A hash of what the data say: the first 12 digits of SHA-256 over every value of plays and catalogue."""
    found = hashlib.sha256()
    for table in (plays, catalogue.to_table()):
        for name in table.schema.names:
            found.update(f"{name}\0{table.column(name).to_pylist()!r}\0".encode())
    return found.hexdigest()[:12]
