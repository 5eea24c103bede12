"""Warming a bundle's engine up before it serves: the members who played last are encoded, off the hot path.

Without it, a swap would make every active member a miss at once. The work is done by one thread that lets all others go first,
in small portions with a rest as long as each of them: plays that are served meanwhile wait for half of an idle core at most.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from intentrec_core.engine import EncodeRequest
from intentrec_core.errors import BundleError, BundleFault, DeviceLost
from stream.serving import Serving

logger = logging.getLogger(__name__)

#: Members encoded at once, some 100 plays each. On a CPU more of them would be shared out among threads that serve plays.
_PORTION_ON_CPU, _PORTION = 1, 8
_NICENESS = 19
#: Members not warm by then are encoded at their next play, as after any miss.
DEADLINE_S = 60.0
#: A context that cannot be encoded is its play's fault; most of them are the bundle's.
_MAX_BAD_RATIO = 0.5


def let_others_go_first() -> None:
    """Makes the calling thread the last one to be given a core. On Linux, where a thread has a niceness of its own."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


@dataclass(slots=True)
class WarmUp:
    """What came of it. ``num_bad``: members whose context the bundle could not encode."""

    num_members: int = 0
    num_bad: int = 0


def warm_up(serving: Serving, requests: Sequence[EncodeRequest], stop: threading.Event) -> WarmUp:
    """Encodes whole contexts into the engine of ``serving``, most important first, until done, late or told to ``stop``.

    Runs on a thread of its own, which owns the engine until the flip.

    Raises: BundleError (not_finite) when most of them cannot be encoded; DeviceLost.
    """
    done, deadline_s = WarmUp(), time.monotonic() + DEADLINE_S
    size = _PORTION_ON_CPU if serving.engine.model.device.type == "cpu" else _PORTION
    for low in range(0, len(requests), size):
        started_s = time.monotonic()
        if started_s > deadline_s or stop.is_set():
            break
        portion = requests[low : low + size]
        done.num_members += len(portion)
        done.num_bad += _encode(serving, portion)
        stop.wait(time.monotonic() - started_s)
    if done.num_members and done.num_bad > _MAX_BAD_RATIO * done.num_members:
        detail = f"cannot encode {done.num_bad} of {done.num_members} members' contexts"
        raise BundleError(BundleFault.NOT_FINITE, serving.version, detail)
    return done


def num_positions(serving: Serving, requests: Iterable[EncodeRequest]) -> int:
    """How many plays there are to encode."""
    size = serving.features.layout.size
    return sum(len(request.context) // size - request.first_changed for request in requests)


def _encode(serving: Serving, portion: Sequence[EncodeRequest]) -> int:
    """Encodes a portion; returns how many members could not be."""
    try:
        finite = np.asarray(np.isfinite(serving.engine.encode(portion).item_NW).all(axis=1))
    except DeviceLost:  # not this bundle's fault: it must not be refused for good
        raise
    except Exception as error:  # as on the hot path: what a context can do to a model is not known beforehand
        if len(portion) > 1:
            return sum(_encode(serving, [request]) for request in portion)
        logger.warning("%s cannot encode a context: %r", serving.version, error)
        return 1
    for request, good in zip(portion, finite.tolist(), strict=True):
        if not good:
            serving.engine.forget(request.user_id)
    return int((~finite).sum())
