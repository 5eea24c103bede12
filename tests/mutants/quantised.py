"""Faults in int8 keys and values: the wrong place, slot or scale, another rounding, and memory that is not accounted for."""

from __future__ import annotations

from functools import partial

from tests.mutants.mutant import one_edit

QUANTISE, ATTENTION = "intentrec_core/kernels/quantise.py", "intentrec_core/engine/cpu/decode_attention.py"
STEP, ENCODER = "intentrec_core/engine/cpu/step.py", "intentrec_core/engine/cpu/encoder.py"
TEST_CACHE, TEST_MACHINE = "tests/parity/test_quantised_cache.py", "tests/property/test_incremental_equals_full.py"
TEST_DENSE, TEST_SETTING = (
    "tests/unit/intentrec_core/kernels/test_dense.py",
    "tests/unit/stream/bundles/test_kv_dtype.py",
)
TEST_EVERY_PLAY = f"{TEST_CACHE}::test_every_play_equals_a_recomputation_over_the_same_codes"
TEST_MANY_PLAYS = f"{TEST_MACHINE}::test_fewer_than_a_thousandth_of_the_codes_of_many_plays_differ"
TEST_ONE_BY_ONE = f"{TEST_MACHINE}::test_one_play_at_a_time_equals_the_whole_context_at_once"


quantised = partial(one_edit, "int8")

QUANTISED = (
    quantised(
        "a scale is stored with the play after",
        QUANTISE,
        "        scales_HC[head, place] = scale\n",
        "        scales_HC[head, min(place + 1, scales_HC.shape[1] - 1)] = scale\n",
        TEST_ONE_BY_ONE,
    ),
    quantised(
        "the scales of a unit are those of the next one",
        STEP,
        "quantise(row[width:behind_key], k_scales_KP, at)",
        "quantise(row[width:behind_key], k_scales_KP, (at + GROUP) % k_scales_KP.shape[1])",
        TEST_ONE_BY_ONE,
        TEST_EVERY_PLAY,
    ),
    quantised(
        "keys are read with the scale of the play before",
        ATTENTION,
        "multiply(row, k_scales_KP[head // num_sharing, at + first : at + end])",
        "multiply(row[1:], k_scales_KP[head // num_sharing, at + first : at + end - 1])",
        TEST_ONE_BY_ONE,
        TEST_EVERY_PLAY,
    ),
    quantised(
        "values are read with the scales of keys",
        ATTENTION,
        "multiply(row, v_scales_KP[head // num_sharing, at + first : at + end])",
        "multiply(row, k_scales_KP[head // num_sharing, at + first : at + end])",
        TEST_ONE_BY_ONE,
    ),
    quantised(
        "the short-term layer's values are scaled by those of the first layer",
        STEP,
        "            cache.v_scales[SHORT_TERM_LAYER], cache.log_place",
        "            cache.v_scales[SHORT_TERM_LAYER + 1], cache.log_place",
        TEST_ONE_BY_ONE,
    ),
    quantised(
        "codes are rounded down",
        QUANTISE,
        "np.rint(part[d] / by)",
        "np.floor(part[d] / by)",
        TEST_EVERY_PLAY,
    ),
    quantised(
        "codes are a ten-thousandth too large",
        QUANTISE,
        "np.rint(part[d] / by)",
        "np.rint(part[d] / by * f32(1.0001))",
        TEST_MANY_PLAYS,
        TEST_EVERY_PLAY,
    ),
    quantised(
        "one scale for all heads",
        QUANTISE,
        "        scale = _scale(part)\n",
        "        scale = _scale(x) if head == 0 else scales_HC[0, place]\n",
        TEST_EVERY_PLAY,
    ),
    quantised(
        "a play sees its own value before it is quantised",
        STEP,
        "            quantise(row[behind_key:], v_scales_KP, at)\n",
        "            quantise(row[behind_key:].copy(), v_scales_KP, at)\n",
        TEST_ONE_BY_ONE,
    ),
    quantised(
        "a number that is none is hidden by its code",
        QUANTISE,
        "    return most / f32(LARGEST_CODE) + broken\n",
        "    return most / f32(LARGEST_CODE)\n",
        TEST_DENSE,
    ),
    quantised(
        "a slot is accounted for as float32",
        ENCODER,
        "    keys_and_values = 2 * config.cached_width * np.dtype(_NUMBERS[kv_dtype]).itemsize\n",
        "    keys_and_values = 2 * config.cached_width * 4\n",
        TEST_CACHE,
    ),
    quantised(
        "scales are not accounted for",
        ENCODER,
        "    scales = 2 * config.num_cached_heads * 4 if kv_dtype is KvDtype.INT8 else 0\n",
        "    scales = 0\n",
        TEST_CACHE,
    ),
    quantised(
        "a worker keeps float32 whatever it is told",
        "stream/bundles/hot_swap.py",
        " kv_dtype=settings.kv_dtype,",
        "",
        TEST_SETTING,
    ),
)
