"""A micro-batch as arrays: one row for each output of each context run, so that every later step handles all rows at once.

Shapes: N rows; R runs; T plays of all contexts, one after another.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from intentrec_core.features.features import FeatureBuilder, ItemRows
from intentrec_core.history.history import EventLayout
from intentrec_core.kernels.context_rows import number_rows
from stream.pipeline.folding import ContextRun, PendingAnswer
from stream.pipeline.row_lists import RowLists
from stream.pipeline.sessions import SessionStarts, session_starts


@dataclass(frozen=True, slots=True)
class BatchRows:
    """The rows of runs, in their order, each run's plays oldest first.

    Shapes: first_row, one int a run; run i64[N] which run a row belongs to; nth i64[N] which of its outputs; plays structured
    [N]; item_row i64[N]; session_event u64[N] hash of the event id of the play that opened the row's session, 0 if it was
    evicted.
    """

    runs: Sequence[ContextRun]
    first_row: Sequence[int]
    run: NDArray[np.int64]
    nth: NDArray[np.int64]
    plays: NDArray[np.void]
    item_row: NDArray[np.int64]
    sessions: SessionStarts
    session_event: NDArray[np.uint64]

    def __len__(self) -> int:
        """N."""
        return len(self.run)

    def of(self, answers: Iterable[Sequence[PendingAnswer]]) -> list[list[int]]:
        """The row of each answer."""
        first_row = dict(zip(map(id, self.runs), self.first_row, strict=True))
        return [[first_row[id(answer.run)] + answer.nth for answer in group] for group in answers]

    def item_rows_before(
        self, rows: NDArray[np.int64], limit: int, layout: EventLayout, vocabulary: ItemRows
    ) -> RowLists:
        """For each of ``rows``, the item rows of the last ``limit`` plays of its context before its own play, oldest first.

        Shapes: i64[n] -> n times i64[up to limit].
        Cost: a copy and a look-up of ``limit`` plays for each row.
        """
        size, parts = layout.size, list[bytes]()
        for run_of, nth in zip(self.run[rows].tolist(), self.nth[rows].tolist(), strict=True):
            run = self.runs[run_of]
            end = len(run.context) - (run.num_outputs - nth) * size
            parts.append(run.context[max(0, end - limit * size) : end])
        flat = vocabulary.rows(layout.view(b"".join(parts))["item_hash"])
        return RowLists.split(flat, [len(part) // size for part in parts])


def lay_out(waves: Iterable[Sequence[ContextRun]], layout: EventLayout, vocabulary: ItemRows) -> BatchRows:
    """Numbers the rows of all runs and gathers what is known of each row's play.

    Cost: a copy of the contexts, and two sessions of each row, compiled.
    """
    runs = [run for wave in waves for run in wave]
    num_plays, num_outputs, carried_ms = np.array(
        [
            [len(run.context) // layout.size for run in runs],
            [run.num_outputs for run in runs],
            [run.carried_ms for run in runs],
        ],
        dtype=np.int64,
    )
    (context_starts, first_rows), (run_of, nth, places) = number_rows(num_plays, num_outputs)
    plays = layout.view(b"".join([run.context for run in runs]))
    sessions = session_starts(plays["ts_ms"], context_starts, carried_ms, layout.gap_ms, places)
    answered = plays[places]
    return BatchRows(
        runs=runs,
        first_row=first_rows.tolist(),
        run=run_of,
        nth=nth,
        plays=answered,
        item_row=vocabulary.rows(answered["item_hash"]),
        sessions=sessions,
        session_event=np.where(sessions.opener >= 0, plays["event_hash"][sessions.opener], 0),
    )


def compile_layout(features: FeatureBuilder) -> None:
    """Compiles what :func:`lay_out` and building features call: seconds where numba's cache is empty."""
    layout = features.layout
    (starts, _), (_, _, places) = number_rows(*np.zeros((2, 0), dtype=np.int64))
    session_starts(layout.view(b"")["ts_ms"], starts, np.zeros(0, dtype=np.int64), layout.gap_ms, places)
    features.columns([], [])
