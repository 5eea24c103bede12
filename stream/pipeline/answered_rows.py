"""What the responder knows of a slice once its lists are ranked: what is then scored, written and counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from intentrec_core.engine.engine import Encoded
    from stream.pipeline.batch_rows import BatchRows
    from stream.pipeline.bundle_counts import BundleCounts
    from stream.pipeline.coalescing import Coalescing
    from stream.pipeline.folding import FoldedPartition
    from stream.pipeline.retrieval import RankedItems
    from stream.pipeline.shown_items import ShownItems
    from stream.pipeline.watched import WatchedRows
    from stream.wire.deferred_counts import DeferredCounts


@dataclass(frozen=True, slots=True)
class AnsweredRows:
    """The answers of a slice, partition by partition, and what is known of each of the slice's N rows.

    ``counts``: by partition; added to the metrics once the partition's records are committed. ``item_counts``: the table of
    counts of plays that the lists were made with.
    Shapes: ``rows_of`` the row of each answer, by partition; ``watched`` i64[any] for each row; ``failed`` bool[N].
    """

    partitions: Sequence[FoldedPartition]
    rows_of: Sequence[Sequence[int]]
    counts: Sequence[DeferredCounts]
    rows: BatchRows
    encoded: Encoded
    failed: NDArray[np.bool_]
    coalescing: Coalescing
    items: ShownItems
    watched: Sequence[WatchedRows]
    ranked: RankedItems
    item_counts: BundleCounts | None = None
