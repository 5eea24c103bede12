"""A step as a CUDA graph. Only a machine with such a device runs it: what it captures is tested without one, it is not."""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch

#: A capture begins by waiting for the whole device, which must not happen in the middle of another one.
_CAPTURING = threading.Lock()


class CudaGraphs:
    """Captures steps of one encoder. Their scratch memory is one pool: they never run at the same time."""

    def __init__(self) -> None:
        self._scratch = torch.cuda.graph_pool_handle()

    @torch.inference_mode()  # as it is repeated: state that graphs share must not change its mode
    def __call__(self, step: Callable[[], None]) -> Callable[[], None]:
        """See :data:`intentrec_core.engine.cuda.decode_step.Capture`. On the current stream, which must not be the default one.

        The step runs once as it is: kernels are compiled, libraries take their workspaces, and short memory shows here.
        """
        step()
        graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.current_stream()
        # thread_local: a coming bundle may take memory on its own thread at this moment.
        with (
            _CAPTURING,
            torch.cuda.graph(graph, pool=self._scratch, stream=stream, capture_error_mode="thread_local"),
        ):
            step()
        return graph.replay
