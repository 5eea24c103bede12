"""Faults in heads that share keys and values: the wrong one is read, kept or scaled, and sizes are those of all heads."""

from __future__ import annotations

from functools import partial

from tests.mutants.mutant import one_edit

ATTENTION, CONFIG = "intentrec_core/model/attention.py", "intentrec_core/model/config.py"
CPU, ENCODER = "intentrec_core/engine/cpu/decode_attention.py", "intentrec_core/engine/cpu/encoder.py"
POOLED, PAGED = "intentrec_core/engine/cuda/pooled_attend.py", "intentrec_core/engine/cuda/paged_attention.py"
POOL, COMMANDS = "intentrec_core/engine/cuda/kv_pool.py", "stream/cli/learning.py"
TEST_LAYER = "tests/unit/intentrec_core/model/test_shared_heads.py"
TEST_KERNELS, TEST_ENCODERS = "tests/unit/intentrec_core/kernels/test_dense.py", "tests/parity/test_encoders.py"
TEST_MACHINE = "tests/property/test_incremental_equals_full.py"
TEST_ONE_BY_ONE = f"{TEST_MACHINE}::test_one_play_at_a_time_equals_the_whole_context_at_once"
TEST_PAGED, TEST_POOL = "tests/parity/test_paged_attention.py", "tests/parity/test_half_precision.py"
TEST_CACHE, TEST_BUNDLE = "tests/parity/test_quantised_cache.py", "tests/unit/intentrec_core/bundle/test_format.py"
TEST_COMMANDS = "tests/unit/stream/cli/test_first_model.py"


shared = partial(one_edit, "shared heads")

SHARED_HEADS = (
    shared(
        "neighbours read keys of different heads",
        ATTENTION,
        "k, v = for_each_head(k, group, dim=2), for",
        "k, v = k.repeat(1, 1, group, 1), for",
        TEST_LAYER,
    ),
    shared(
        "queries are scored with the keys of another shared head",
        CPU,
        "keys = (group * width + shared * depth) * GROUP",
        "keys = (group * width + (width // depth - 1 - shared) * depth) * GROUP",
        TEST_ENCODERS,
        TEST_ONE_BY_ONE,
    ),
    shared(
        "values of another shared head are mixed",
        CPU,
        "column, head, behind = shared * depth + part,",
        "column, head, behind = (num_heads // num_sharing - 1 - shared) * depth + part,",
        TEST_ENCODERS,
    ),
    shared(
        "neighbours mix values of different heads where a head is narrow",
        CPU,
        "head // num_sharing * depth, head * depth",
        "head % (num_heads // num_sharing) * depth, head * depth",
        TEST_ONE_BY_ONE,
    ),
    shared(
        "the fourth head that shares keys is scored with the third one's query",
        CPU,
        "q[column + 3 * depth + d]",
        "q[column + 2 * depth + d]",
        TEST_KERNELS,
    ),
    shared(
        "keys are scaled as those of the first shared head",
        CPU,
        "multiply(row, k_scales_KP[head // num_sharing, at + first : at + end])",
        "multiply(row, k_scales_KP[0, at + first : at + end])",
        TEST_ONE_BY_ONE,
        TEST_CACHE,
    ),
    shared(
        "a pool keeps the first heads instead of one of each group",
        POOLED,
        "new_BTHD[self._new][:, ::group]",
        "new_BTHD[self._new][:, : memory_NHCD.shape[1]]",
        TEST_ONE_BY_ONE,
    ),
    shared(
        "neighbours read gathered keys of different heads",
        POOLED,
        "for_each_head(read, group, dim=1)",
        "read.repeat(1, group, 1, 1)",
        TEST_ONE_BY_ONE,
    ),
    shared(
        "the kernel reads another shared head",
        PAGED,
        "(NUM_HEADS // GROUP) + head // GROUP) *",
        "(NUM_HEADS // GROUP) + head % (NUM_HEADS // GROUP)) *",
        TEST_PAGED,
    ),
    shared(
        "a slot is accounted for as if heads shared nothing",
        ENCODER,
        "2 * config.cached_width * np.dtype",
        "2 * config.width * np.dtype",
        TEST_CACHE,
    ),
    shared(
        "a pool on a device is accounted for as if heads shared nothing",
        POOL,
        "config.num_cached_layers * config.cached_width * dtype",
        "config.num_cached_layers * config.width * dtype",
        TEST_POOL,
    ),
    shared(
        "any number of heads of keys and values is taken",
        CONFIG,
        " or shared not in divisors)",
        " or not 1 <= shared <= self.num_heads)",
        TEST_LAYER,
    ),
    shared(
        "a bundle whose heads share nothing is another than before",
        CONFIG,
        '            del values["num_kv_heads"]\n',
        "            pass\n",
        TEST_BUNDLE,
    ),
    shared(
        "train leaves out what it is told",
        COMMANDS,
        "settings, width=width, num_layers=layers, num_kv_heads=kv_heads, own_items=own_items, item_counts=item_counts\n    )\n"
        "    model = _learn",
        "settings, width=width, num_layers=layers, own_items=own_items, item_counts=item_counts\n    )\n    model = _learn",
        TEST_COMMANDS,
    ),
)
