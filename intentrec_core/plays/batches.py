"""Batches of windows for training and evaluation: features are computed once, then sliced and padded.

Shapes: W windows, N plays of all windows, one window after another (windows overlap, so a play can occur twice).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from intentrec_core.domain.spec import Domain
from intentrec_core.features.columns import Columns
from intentrec_core.features.context_batch import ContextBatch, collate
from intentrec_core.features.features import FeatureBuilder
from intentrec_core.features.labels import ItemLabels, is_known
from intentrec_core.plays.members import MemberPlays
from intentrec_core.plays.windows import Windows

BUILD_WINDOWS = 1024
SORTED_BATCHES = 16
"""The windows of this many batches are sorted by length together: batches need little padding and are still a random mixture."""


@dataclass(frozen=True, slots=True)
class WindowBatch:
    """A padded batch and the windows it consists of.

    Shapes: context as :class:`ContextBatch`, first_target i64[B], windows i64[B] indices of the windows.
    """

    context: ContextBatch
    first_target: Tensor
    windows: NDArray[np.int64]

    def to(self, device: torch.device) -> WindowBatch:
        """The same batch on ``device``."""
        return WindowBatch(self.context.to(device), self.first_target.to(device), self.windows)


class WindowBatches:
    """Features of all windows as they would be served. They can be batched any number of times.

    Cost: building is one pass over the windows; memory about 40 bytes per play, and 8 more for each dynamic field.
    """

    def __init__(self, features: FeatureBuilder, members: MemberPlays, windows: Windows) -> None:
        self.windows = windows
        self._length = windows.stop - windows.start
        self._begin = np.cumsum(self._length) - self._length
        built = []
        for low in range(0, max(1, len(windows)), BUILD_WINDOWS):
            chunk = slice(low, low + BUILD_WINDOWS)
            spans = zip(windows.start[chunk].tolist(), windows.stop[chunk].tolist(), strict=True)
            contexts = [members.packed(start, stop) for start, stop in spans]
            built.append(features.columns(contexts, [0] * len(contexts)))
        self._columns = Columns(
            *(np.concatenate([getattr(columns, name) for columns in built]) for name in Columns.__slots__)
        )

    @property
    def item_row(self) -> NDArray[np.int64]:
        """Item rows of all windows' plays, one window after another. Shape: i64[N]."""
        return self._columns.item_row

    def num_known_labels(self, domain: Domain, items: ItemLabels) -> dict[str, int]:
        """How many plays that are predicted have a known label, by intent head."""
        nth = np.arange(len(self.item_row)) - np.repeat(self._begin, self._length)
        targets = nth >= np.repeat(np.maximum(self.windows.first_target, 1), self._length)
        return {head.name: int(is_known(domain, head, items, self._columns)[targets].sum()) for head in domain.heads}

    def shuffled(self, batch_windows: int, random: np.random.Generator) -> Iterator[WindowBatch]:
        """One epoch: every window once, in an order drawn from ``random``, with windows of similar length in one batch."""
        order = random.permutation(len(self.windows))
        batches: list[NDArray[np.int64]] = []
        for low in range(0, len(order), batch_windows * SORTED_BATCHES):
            chunk = order[low : low + batch_windows * SORTED_BATCHES]
            chunk = chunk[np.argsort(self._length[chunk], kind="stable")]
            batches += [chunk[i : i + batch_windows] for i in range(0, len(chunk), batch_windows)]
        for place in random.permutation(len(batches)):
            yield self._batch(batches[place])

    def ordered(self, batch_windows: int) -> Iterator[WindowBatch]:
        """Every window once, shortest first."""
        order = np.argsort(self._length, kind="stable")
        for low in range(0, len(order), batch_windows):
            yield self._batch(order[low : low + batch_windows])

    def num_batches(self, batch_windows: int) -> int:
        """Number of batches of one epoch."""
        return -(-len(self.windows) // batch_windows)

    def _batch(self, which: NDArray[np.int64]) -> WindowBatch:
        length = self._length[which]
        offset = np.arange(int(length.sum())) - np.repeat(np.cumsum(length) - length, length)
        plays = np.repeat(self._begin[which], length) + offset
        flat = self._columns
        context = collate(flat.at(plays, length, flat.starts[which]))
        return WindowBatch(context, torch.from_numpy(self.windows.first_target[which]), which)
