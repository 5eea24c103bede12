"""Captures a step as a CUDA graph. It only runs on a machine with a CUDA device; what is captured is tested without
one, the capture itself is not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch

#: A capture starts by waiting for the whole device, which must not happen during another capture.
_CAPTURING = threading.Lock()


class CudaGraphs:
    """Captures the steps of one encoder. The steps share one pool of scratch memory, because they never run at the same
    time.
    """

    def __init__(self) -> None:
        self._scratch = torch.cuda.graph_pool_handle()

    @torch.inference_mode()  # the same mode as when it is replayed: tensors that graphs share must not change theirs
    def __call__(self, step: Callable[[], None]) -> Callable[[], None]:
        """See :data:`intentrec_core.engine.cuda.decode_step.Capture`. Captures on the current stream, which must not be
        the default one.

        The step first runs once without a graph: kernels are compiled, libraries allocate their workspaces, and a lack
        of memory shows here.
        """
        step()
        graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.current_stream()
        # thread_local: a coming bundle may be allocating memory on another thread at the same time.
        with (
            _CAPTURING,
            torch.cuda.graph(graph, pool=self._scratch, stream=stream, capture_error_mode="thread_local"),
        ):
            step()
        return graph.replay
