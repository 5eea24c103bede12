"""Features that are nearly right: to the bit, they are what training has seen."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant

KERNEL, HASH_ROWS = "intentrec_core/kernels/play_features.py", "intentrec_core/kernels/hash_rows.py"
HELD, TEST_CACHE = "intentrec_core/kernels/held.py", "tests/unit/intentrec_core/kernels/test_compiled_cache.py"
TEST_KERNEL = "tests/unit/intentrec_core/kernels/test_play_features.py"
TEST_BATCH_ROWS = "tests/unit/stream/pipeline/test_batch_rows.py"

FEATURES = (
    Mutant(
        "times and ages multiplied by a reciprocal, which rounds otherwise",
        (Edit(KERNEL, "_exact = partial(compiled, fastmath=set())\n", "_exact = compiled\n"),),
        (TEST_KERNEL,),
    ),
    Mutant(
        "the first new play of a context taken for its first play",
        (Edit(KERNEL, "is_first = nth == 0 and starts[context] == 0\n", "is_first = nth == 0\n"),),
        (TEST_KERNEL,),
    ),
    Mutant(
        "a number on an edge in the bucket below it",
        (Edit(KERNEL, "        code += edge <= number\n", "        code += edge < number\n"),),
        (TEST_KERNEL,),
    ),
    Mutant(
        "an unknown item taken for one whose hash begins alike",
        (Edit(HASH_ROWS, "            if known[at] == hashes[i]:\n", "            if known[at] >= hashes[i]:\n"),),
        (TEST_KERNEL,),
    ),
    Mutant(
        "a look-up of rows compiled while plays are answered",
        (Edit("intentrec_core/features/vocabulary.py", "find_rows(hashes.flatten(), ", "find_rows(hashes, "),),
        (TEST_BATCH_ROWS,),
    ),
    Mutant(
        "what holds the arguments of compiled code compiled in every process",
        (Edit(HELD, "        return _hold(value)\n", "        return structref.StructRefProxy.__new__(cls, value)\n"),),
        (TEST_CACHE,),
    ),
    Mutant(
        "a code of no label marks a label of the next head",
        (
            Edit(
                "intentrec_core/kernels/judged.py",
                "            if codes[i, head] > 0 and place < places[head, 1]:\n",
                "            if codes[i, head] > 0:\n",
            ),
        ),
        ("tests/unit/stream/pipeline/live_quality/test_labels.py",),
    ),
    Mutant(
        "new plays of a context written to one place",
        (Edit("intentrec_core/kernels/context_rows.py", "starts[context] + nth\n", "starts[context]\n"),),
        (TEST_BATCH_ROWS,),
    ),
)
