"""Who looks on while an experiment runs: for progress bars. Nothing is decided by it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from intentrec_core.training.reports import EpochCallback, ProgressCallback

Callbacks = tuple[ProgressCallback | None, EpochCallback | None]


class Watch(Protocol):
    """Told what an experiment does."""

    def training(self, title: str) -> AbstractContextManager[Callbacks]:
        """Callbacks for a training run that begins now."""
        ...

    def step(self, title: str) -> None:
        """Something else that takes a while begins."""
        ...


class Silent:
    """Nobody looks on."""

    @contextmanager
    def training(self, title: str) -> Iterator[Callbacks]:
        """See :class:`Watch`."""
        yield None, None

    def step(self, title: str) -> None:
        """See :class:`Watch`."""
