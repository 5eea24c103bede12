"""Faults in what runs on a device: the paged kernel, the static step, and a device that fails."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant

PAGED, STEP, POOL = (
    "intentrec_core/engine/cuda/paged_attention.py",
    "intentrec_core/engine/cuda/decode_step.py",
    "intentrec_core/engine/cuda/kv_pool.py",
)
ENGINE, FAULTS, TIME = (
    "intentrec_core/engine/engine.py",
    "intentrec_core/engine/cuda/device_faults.py",
    "intentrec_core/model/attention.py",
)
TEST_PAGED, TEST_STEP = "tests/parity/test_paged_attention.py", "tests/unit/intentrec_core/engine/test_decode_step.py"
TEST_MEMORY, TEST_FAULTS = (
    "tests/unit/stream/pipeline/test_out_of_memory.py",
    "tests/unit/intentrec_core/engine/test_device_faults.py",
)
TEST_ISOLATION, TEST_WORKER, TEST_SWAP = (
    "tests/unit/stream/pipeline/test_isolation.py",
    "tests/unit/stream/delivery/test_partition_reopens.py",
    "tests/unit/stream/bundles/test_hot_swap.py",
)


def kernel(name: str, old: str, new: str) -> Mutant:
    """A fault in the paged kernel."""
    return Mutant(f"device: {name}", (Edit(PAGED, old, new),), (TEST_PAGED,))


DEVICE = (
    kernel("a key at the window's very edge is not seen", "(lag_s <= WINDOW_S)", "(lag_s < WINDOW_S)"),
    kernel("the oldest key is not seen", "range(0, place, BLOCK)", "range(1, place, BLOCK)"),
    kernel("the key before the play is not seen", "seen = at < place\n", "seen = at < place - 1\n"),
    kernel("the bias of time has the other sign", "- by_lag * log_lag", "+ by_lag * log_lag"),
    kernel("the bias of places counts one less", "tl.maximum(place - at, 0)", "tl.maximum(place - at - 1, 0)"),
    kernel("the short-term window holds in every layer", "if layer == SHORT_TERM_LAYER else None", ""),
    kernel("earlier blocks are not scaled down", "mixed = mixed * kept +", "mixed = mixed +"),
    kernel("values are kept where keys are", "tl.store(pool_v_ptr +", "tl.store(pool_k_ptr +"),
    kernel("a play reads its own key unrounded", ".to(pool_k_ptr.dtype.element_ty)", ".to(tl.float32)"),
    Mutant(
        "device: a number of Python's is baked into the step",
        (Edit(STEP, "starts=plays[:, _PLACE],", "starts=torch.full_like(slots, int(self._staged[0, _PLACE])),"),),
        (TEST_STEP,),
    ),
    Mutant(
        "device: periods are made from Python numbers in every step",
        (Edit(TIME, "/ self.periods_s)", "/ ts_BT.new_tensor(PERIODS_S))"),),
        (TEST_STEP,),
    ),
    Mutant(
        "device: what fills a bucket up writes to a member's slot",
        (Edit(POOL, "        return self.num_slots\n", "        return 0\n"),),
        (TEST_STEP,),
    ),
    Mutant(
        "device: what fills a bucket up is left from the step before",
        (Edit(STEP, "        staged[num:bucket, _SLOT] = self._pool.spare_slot\n", ""),),
        (TEST_STEP,),
    ),
    Mutant(
        "device: a smaller pool is made while the old one is held",
        (Edit(ENGINE, "if self.num_contexts > 1:\n                        pass\n",
              "if self.num_contexts > 1:\n                        self._halve_the_pool()\n                        continue\n"),),
        (TEST_MEMORY,),
    ),
    Mutant(
        "device: memory that a capture lacked counts as a lost device",
        (Edit(FAULTS, " or (error.__context__ is not None and _no_memory(error.__context__))", ""),),
        (TEST_MEMORY,),
    ),
    Mutant(
        "device: cuBLAS and triton errors are a play's fault",
        (Edit(FAULTS, "str(error).startswith(_LOST)", "isinstance(error, torch.AcceleratorError)"),),
        (TEST_FAULTS,),
    ),
    Mutant(
        "device: plays are given up for a lost device",
        (Edit("stream/pipeline/isolation.py", "except DeviceLost:  # not the", "except GeneratorExit:  # not the"),),
        (TEST_ISOLATION,),
    ),
    Mutant(
        "device: partitions are opened again on a lost device",
        (Edit("stream/delivery/worker.py", "_FINAL = (StateError, DeviceLost)", "_FINAL = (StateError,)"),),
        (TEST_WORKER,),
    ),
    Mutant(
        "device: a bundle is refused for a lost device",
        (Edit("stream/pipeline/migration.py", "except DeviceLost:  # not this", "except GeneratorExit:  # not this"),),
        ("tests/unit/stream/pipeline/test_migration_aborts.py",),
    ),
)  # fmt: skip
