"""Encodes a batch so that a play which crashes inference affects no other member.

A call that raises is split in half until one run is left, and that run into its plays. A play that fails ``max_tries`` times by
itself is given up: it goes to the dead letters, and stays in the history, which is ground truth. While it is in the member's
context, that member's later plays can fail too. Such a member is a suspect and is encoded apart from the others, so that a
batch is split once and not every time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec.structs
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from intentrec_core.engine.engine import Encoded, EncodeRequest, IncrementalEngine
from intentrec_core.engine.member_key import MemberKey
from intentrec_core.engine.probe import encode_probe
from intentrec_core.errors import DeviceLost, EngineError
from intentrec_core.history.history import EventLayout
from stream.pipeline.folding import ContextRun

T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True, slots=True)
class EncodeResult:
    """What was encoded of a batch. Shapes: ``failed`` bool[N]; rows that failed are undefined in ``encoded``."""

    encoded: Encoded
    failed: NDArray[np.bool_]


class _PlacedRun(Struct, frozen=True, gc=False):
    """A run, or some of its plays, and the row of its first output."""

    run: ContextRun
    first_row: int

    @property
    def rows(self) -> slice:
        """The rows of its outputs."""
        return slice(self.first_row, self.first_row + self.run.num_outputs)


_EncodedCalls = list[tuple[Sequence[_PlacedRun], Encoded]]
"""The calls that succeeded, with the runs of each."""


class IsolatingEncoder:
    """Encodes runs with one engine. Owned by the inference thread, as the engine is."""

    def __init__(self, engine: IncrementalEngine, layout: EventLayout, max_tries: int) -> None:
        self.engine = engine
        self._layout = layout
        self._max_tries = max_tries
        self._suspects: set[MemberKey] = set()

    def forget(self, member: MemberKey) -> None:
        """Drops what is cached of a member, and that it is a suspect."""
        self.engine.forget(member)
        self._suspects.discard(member)

    def encode(self, waves: Sequence[Sequence[ContextRun]], first_row: Sequence[int]) -> EncodeResult:
        """Encodes all runs. ``first_row`` of each run, in the order of the waves, as :func:`lay_out` numbers them.

        Raises: DeviceLost, or EngineError when not even a context known to be good can be encoded: none of these plays may
        be acknowledged. The worker opens their partitions again, and ends at the tenth failure in a row.
        """
        first_rows = iter(first_row)
        placed = [[_PlacedRun(run, next(first_rows)) for run in runs] for runs in waves]
        done: _EncodedCalls = []
        for runs in placed:
            apart = [p for p in runs if p.run.member in self._suspects] if self._suspects else []
            together = [p for p in runs if p.run.member not in self._suspects] if apart else runs
            for group in (together, *([p] for p in apart)):
                if group:
                    self._encode(group, done)
        num_rows = sum(p.run.num_outputs for runs in placed for p in runs)
        result = _assemble(done, num_rows)
        if result is None:
            return EncodeResult(_undefined(num_rows, self._probe()), np.ones(num_rows, dtype=bool))
        is_finite = np.isfinite(result.encoded.item_NW)
        if not is_finite.all():
            result.failed[~is_finite.all(axis=1)] = True
        if result.failed.any():
            self._forget_failed(placed, result.failed)
        return result

    def _encode(self, runs: Sequence[_PlacedRun], done: _EncodedCalls) -> None:
        alone = runs[0] if len(runs) == 1 else None
        tries = self._max_tries if alone is not None and alone.run.num_outputs == 1 else 1
        for _ in range(tries):
            try:
                encoded = self.engine.encode([_request(p.run) for p in runs])
            except DeviceLost:  # not the play's fault: each half would fail the same way, and be given up for it
                raise
            except Exception:  # whatever a play can do to a model: the one place where it must not end the process
                continue
            done.append((runs, encoded))
            if alone is not None:
                self._suspects.discard(alone.run.member)
            return
        if alone is None:
            self._encode(runs[: len(runs) // 2], done)
            self._encode(runs[len(runs) // 2 :], done)
        elif alone.run.num_outputs > 1:
            for half in self._halves(alone):
                self._encode([half], done)
        else:
            self._suspects.add(alone.run.member)

    def _halves(self, placed: _PlacedRun) -> tuple[_PlacedRun, _PlacedRun]:
        run = placed.run
        later = run.num_outputs // 2
        end = len(run.context) - later * self._layout.size
        num_earlier_plays = end // self._layout.size
        earlier = msgspec.structs.replace(run, context=run.context[:end], num_outputs=run.num_outputs - later)
        rest = msgspec.structs.replace(run, first_changed=num_earlier_plays, num_outputs=later)
        return _PlacedRun(earlier, placed.first_row), _PlacedRun(rest, placed.first_row + earlier.num_outputs)

    def _probe(self) -> Encoded:
        try:
            return encode_probe(self.engine, self._layout)
        except DeviceLost:
            raise
        except Exception as error:  # whatever the device raises: this context is known to be good
            raise EngineError(f"inference fails for every context, even a known good one: {error}") from error

    def _forget_failed(self, placed: Sequence[Sequence[_PlacedRun]], failed: NDArray[np.bool_]) -> None:
        for runs in placed:
            for p in runs:
                if failed[p.rows].any():
                    self.engine.forget(p.run.member)


def _request(run: ContextRun) -> EncodeRequest:
    return EncodeRequest(run.member, run.anchor, run.context, run.first_changed, run.num_outputs)


def _assemble(done: _EncodedCalls, num_rows: int) -> EncodeResult | None:
    """Puts the results of all calls into one; None where no call succeeded. One call for all rows is taken as it is."""
    if not done:
        return None
    _, whole = done[0]
    if len(whole.item_NW) == num_rows:
        return EncodeResult(whole, np.zeros(num_rows, dtype=bool))
    out, failed = _undefined(num_rows, whole), np.ones(num_rows, dtype=bool)
    for runs, encoded in done:
        rows = np.concatenate([np.arange(p.rows.start, p.rows.stop) for p in runs])
        failed[rows] = False
        for kept, part in zip(_arrays(out), _arrays(encoded), strict=True):
            kept[rows] = part
    return EncodeResult(out, failed)


def _arrays(encoded: Encoded) -> list[NDArray[np.generic]]:
    return [
        encoded.item_NW,
        encoded.alpha_NM,
        encoded.intent_NP,
        encoded.primary_N,
        encoded.previous_primary_N,
        *encoded.heads,
    ]


def _undefined(num_rows: int, like: Encoded) -> Encoded:
    def rows(array: NDArray[T]) -> NDArray[T]:
        return np.zeros((num_rows, *array.shape[1:]), dtype=array.dtype)

    return Encoded(
        item_NW=rows(like.item_NW),
        heads=tuple(rows(head) for head in like.heads),
        alpha_NM=rows(like.alpha_NM),
        intent_NP=rows(like.intent_NP),
        primary_N=rows(like.primary_N),
        previous_primary_N=rows(like.previous_primary_N),
    )
