"""Networks of torch, and the encoders and engines that hold their weights as arrays."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from intentrec_core.engine.cpu.encoder import CpuEncoder
from intentrec_core.engine.encoder import Encoder
from intentrec_core.engine.engine import IncrementalEngine
from intentrec_core.model.model import IntentRec
from intentrec_core.model.weights import ModelWeights


def encoder_of(
    kind: Callable[..., Encoder],
    model: IntentRec,
    pool_bytes: int,
    *,
    num_threads: int = 1,
    slot_contexts: int | None = None,
) -> Encoder:
    """An encoder of a network. One that is compiled takes its weights as arrays, and has threads and larger slots."""
    if isinstance(kind, type) and issubclass(kind, CpuEncoder):
        return kind(model.weights(), pool_bytes, num_threads=num_threads, slot_contexts=slot_contexts)
    return kind(model, pool_bytes)


def network_of(engine: IncrementalEngine) -> IntentRec:
    """The network with an engine's weights: the reference of what it encodes."""
    return _network(engine.weights)


@lru_cache(maxsize=16)
def _network(weights: ModelWeights) -> IntentRec:
    return IntentRec.of(weights)
