"""Encoding a batch such that a play which crashes inference takes no other member with it.

A call that raises is cut in half until the run stands alone, and that run into its plays; a play that fails by itself
``max_tries`` times is given up: it goes to the dead letters while it stays folded in the history, which is ground truth.
As long as it is in the member's context, that member's later plays can fail too; such a member is encoded apart from
the others from then on, so that a batch is cut up once and not every time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from intentrec_core.engine.engine import Encoded, EncodeRequest, IncrementalEngine
from intentrec_core.engine.member_key import MemberKey
from intentrec_core.errors import DeviceLost, EngineError
from intentrec_core.history.history import EventLayout
from stream.pipeline.folding import ContextRun

T = TypeVar("T", bound=np.generic)

#: No member's: partitions are not negative.
_PROBE = MemberKey(-1, "probe")


@dataclass(frozen=True, slots=True)
class EncodeResult:
    """What was encoded of a batch. Shapes: ``failed`` bool[N]; rows that failed are undefined in ``encoded``."""

    encoded: Encoded
    failed: NDArray[np.bool_]


class IsolatingEncoder:
    """Encodes runs with one engine; owned by the inference thread, as the engine is."""

    def __init__(self, engine: IncrementalEngine, layout: EventLayout, max_tries: int) -> None:
        self.engine = engine
        self._layout = layout
        self._max_tries = max_tries
        self._suspects: set[MemberKey] = set()

    def forget(self, member: MemberKey) -> None:
        """Drops what is cached and suspected of a member."""
        self.engine.forget(member)
        self._suspects.discard(member)

    def encode(self, waves: Sequence[Sequence[ContextRun]]) -> EncodeResult:
        """Encodes all runs; rows as laid out (``first_row``).

        Raises: DeviceLost, or EngineError when not even a context known to be good can be encoded: the process has to end,
        and none of these plays may be acknowledged.
        """
        pieces: list[tuple[Sequence[ContextRun], Encoded]] = []
        for runs in waves:
            apart = [run for run in runs if run.member in self._suspects] if self._suspects else []
            together = [run for run in runs if run.member not in self._suspects] if apart else list(runs)
            for group in (together, *([run] for run in apart)):
                if group:
                    self._encode(group, pieces)
        num_rows = sum(run.num_outputs for runs in waves for run in runs)
        attempt = _assemble(pieces, num_rows)
        if attempt is None:
            return EncodeResult(_undefined(num_rows, self._probe()), np.ones(num_rows, dtype=bool))
        attempt.failed[~np.isfinite(attempt.encoded.item_NW).all(axis=1)] = True
        if attempt.failed.any():
            self._forget_failed(waves, attempt.failed)
        return attempt

    def _encode(self, runs: Sequence[ContextRun], pieces: list[tuple[Sequence[ContextRun], Encoded]]) -> None:
        tries = self._max_tries if len(runs) == 1 and runs[0].num_outputs == 1 else 1
        for _ in range(tries):
            try:
                encoded = self.engine.encode([_request(run) for run in runs])
            except DeviceLost:  # no play's fault: in halves it would fail the same way, and be given up for it
                raise
            except Exception:  # whatever a play can do to a model: the one place where it must not end the process
                continue
            pieces.append((runs, encoded))
            if len(runs) == 1:
                self._suspects.discard(runs[0].member)
            return
        if len(runs) > 1:
            self._encode(runs[: len(runs) // 2], pieces)
            self._encode(runs[len(runs) // 2 :], pieces)
        elif runs[0].num_outputs > 1:
            for part in self._halves(runs[0]):
                self._encode([part], pieces)
        else:
            self._suspects.add(runs[0].member)

    def _halves(self, run: ContextRun) -> tuple[ContextRun, ContextRun]:
        later = run.num_outputs // 2
        cut = len(run.context) - later * self._layout.size
        num_before = cut // self._layout.size
        earlier = replace(run, context=run.context[:cut], num_outputs=run.num_outputs - later)
        rest = replace(run, first_changed=num_before, num_outputs=later, first_row=run.first_row + earlier.num_outputs)
        return earlier, rest

    def _probe(self) -> Encoded:
        good = self._layout.pack(
            item_id=_PROBE.user_id, event_id=_PROBE.user_id, ts_ms=0, duration_s=None, attributes={}
        )
        try:
            return self.engine.encode([EncodeRequest(_PROBE, 0, good.data, 0)])
        except DeviceLost:
            raise
        except Exception as error:
            raise EngineError(f"inference fails for every context, even a known good one: {error}") from error
        finally:
            self.engine.forget(_PROBE)

    def _forget_failed(self, waves: Sequence[Sequence[ContextRun]], failed: NDArray[np.bool_]) -> None:
        for runs in waves:
            for run in runs:
                if failed[run.first_row : run.first_row + run.num_outputs].any():
                    self.engine.forget(run.member)


def _request(run: ContextRun) -> EncodeRequest:
    return EncodeRequest(run.member, run.anchor, run.context, run.first_changed, run.num_outputs)


def _assemble(pieces: Sequence[tuple[Sequence[ContextRun], Encoded]], num_rows: int) -> EncodeResult | None:
    """Lays pieces out as one; None where there is none. One piece that is everything is taken as it is."""
    if not pieces:
        return None
    _, whole = pieces[0]
    if len(whole.item_NW) == num_rows:
        return EncodeResult(whole, np.zeros(num_rows, dtype=bool))
    out, failed = _undefined(num_rows, whole), np.ones(num_rows, dtype=bool)
    for runs, encoded in pieces:
        rows = np.concatenate([np.arange(run.first_row, run.first_row + run.num_outputs) for run in runs])
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
