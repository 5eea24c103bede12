"""Outputs that grow larger than their topic takes."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant

WRITER, SIZES, DEAD_LETTER = (
    "stream/pipeline/message_writer.py",
    "stream/wire/sizes.py",
    "stream/wire/dead_letter.py",
)
TEST_WRITER = "tests/unit/stream/pipeline/test_message_writer.py"
TEST_SIZES = "tests/unit/stream/wire/test_sizes.py"
TEST_BUNDLES = "tests/unit/stream/bundles/test_message_sizes.py"
TEST_DEAD_LETTER = "tests/unit/stream/wire/test_dead_letter.py"

SIZES_OF_OUTPUTS = (
    Mutant(
        "sizes: a message joins its batch whatever its size",
        (
            Edit(
                WRITER,
                "        if len(whole[0]) > self._max_bytes[0] or len(whole[1]) > self._max_bytes[1]:\n",
                "        if False:\n",
            ),
        ),
        (TEST_WRITER,),
    ),
    Mutant(
        "sizes: a list with long titles is given up instead of cut",
        (Edit(WRITER, "with_short_titles(recommendation, self._max_bytes[0])", "None"),),
        (TEST_WRITER,),
    ),
    Mutant(
        "sizes: a message that is not sent gets no dead letter",
        (Edit(WRITER, "        if too_large:\n", "        if False:\n"),),
        (TEST_WRITER,),
    ),
    Mutant(
        "sizes: a control character in an id counts as one byte",
        (Edit(SIZES, '_LONGEST_ID = "\\0" * MAX_ID_BYTES', '_LONGEST_ID = "x" * MAX_ID_BYTES'),),
        (TEST_SIZES,),
    ),
    Mutant(
        "sizes: a label named as primary intent counts once",
        (Edit("intentrec_core/domain/toml.py", "sum(by_head.values()) + again > MAX", "sum(by_head.values()) > MAX"),),
        (TEST_SIZES,),
    ),
    Mutant(
        "sizes: batches larger than a topic takes",
        (
            Edit(
                "stream/kafka/publisher.py",
                "    return min(BATCH_BYTES, limits.smallest)\n",
                "    return BATCH_BYTES\n",
            ),
        ),
        (TEST_SIZES,),
    ),
    Mutant(
        "sizes: a bundle whose intent updates cannot be sent serves",
        (Edit("stream/bundles/message_sizes.py", "    if intent_bytes > most:\n", "    if False:\n"),),
        (TEST_BUNDLES,),
    ),
    Mutant(
        "sizes: empty headers of a producer count nothing",
        (Edit(DEAD_LETTER, "HEADER_OVERHEAD_BYTES = 10\n", "HEADER_OVERHEAD_BYTES = 0\n"),),
        (TEST_DEAD_LETTER,),
    ),
    Mutant(
        "sizes: a dead letter larger than its topic takes",
        (Edit(DEAD_LETTER, "min(MAX_KEPT_BYTES, left_bytes)", "MAX_KEPT_BYTES"),),
        (TEST_DEAD_LETTER,),
    ),
)
