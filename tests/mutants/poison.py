"""Faults in what plays and bundles may be: bytes of any kind, contexts that crash inference, weights that must not serve."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant

CODEC, FOLDING, DEAD_LETTER = "stream/wire/codec.py", "stream/pipeline/folding.py", "stream/wire/dead_letter.py"
ISOLATION, HEADER_NAMES = "stream/pipeline/isolation.py", "stream/kafka/header_names.py"
HOT_SWAP, MIGRATION, VERIFICATION, PIPELINE = (
    "stream/bundles/hot_swap.py",
    "stream/pipeline/migration.py",
    "stream/bundles/verification.py",
    "stream/pipeline/pipeline.py",
)
BUNDLE, CONTENTS, STORE = (
    "intentrec_core/bundle/format.py",
    "intentrec_core/bundle/contents.py",
    "intentrec_core/bundle/store.py",
)

TEST_CODEC, TEST_DEAD_LETTER, TEST_PIPELINE = (
    "tests/unit/stream/wire/test_codec.py",
    "tests/unit/stream/wire/test_dead_letter.py",
    "tests/unit/stream/pipeline/test_pipeline.py",
)
TEST_ISOLATION, TEST_HEADER_NAMES = (
    "tests/unit/stream/pipeline/test_isolation.py",
    "tests/unit/stream/kafka/test_header_names.py",
)
TEST_BUNDLE, TEST_SWAP = "tests/unit/intentrec_core/bundle/test_format.py", "tests/unit/stream/bundles/test_hot_swap.py"
TEST_MIGRATION = "tests/unit/stream/pipeline/test_migration_aborts.py"
TEST_HOT_SWAP = "tests/integration/test_hot_swap.py"

POISON = (
    Mutant(
        "set aside: rejected plays dropped without a trace",
        (Edit(FOLDING, "        self.outputs.append(rejected(record, play.reason, play.detail, self.limits))\n", ""),),
        (TEST_PIPELINE,),
    ),
    Mutant(
        "set aside: a value that could be kept whole is cut",
        (
            Edit(
                DEAD_LETTER,
                "    if len(value) > min(MAX_KEPT_BYTES, left_bytes):\n",
                "    if len(value) > KEPT_OF_OVERSIZED_BYTES:\n",
            ),
        ),
        (TEST_DEAD_LETTER,),
    ),
    Mutant(
        "set aside: a producer says where a dead letter is from",
        (Edit(DEAD_LETTER, "not name.startswith(HEADER_PREFIX)", "True"),),
        (TEST_DEAD_LETTER,),
    ),
    Mutant(
        "set aside: headers of a late play without a bound",
        (
            Edit(
                DEAD_LETTER,
                "        *kept_headers(record.headers),\n",
                "        *((n, c or b'') for n, c in record.headers),\n",
            ),
        ),
        (TEST_DEAD_LETTER,),
    ),
    Mutant(
        "set aside: bytes that are not UTF-8 accepted in an ignored field",
        (Edit(CODEC, "        if not value.isascii():\n", "        if False:\n"),),
        (TEST_CODEC,),
    ),
    Mutant(
        "set aside: plays of the future folded in",
        (Edit(CODEC, "    if timestamp <= 0 or ts_ms <= timestamp + max_future_ms:\n", "    if True:\n"),),
        (TEST_CODEC,),
    ),
    Mutant(
        "deserializers of a consumer not called",
        (
            Edit(
                HEADER_NAMES, "        if self._key_deserializer or self._value_deserializer:\n", "        if False:\n"
            ),
        ),
        (TEST_HEADER_NAMES,),
    ),
    Mutant(
        "set aside: a header name stops its partition",
        (
            Edit(
                HEADER_NAMES, "            if not isinstance(self._given[1], KeptRecords):\n", "            if True:\n"
            ),
        ),
        (TEST_HEADER_NAMES,),
    ),
    Mutant(
        "set aside: a record with an odd header name skipped",
        (
            Edit(
                HEADER_NAMES,
                "aborted_transactions, self.next_fetch_offset,",
                "aborted_transactions, self.next_fetch_offset + 1,",
            ),
        ),
        (TEST_HEADER_NAMES,),
    ),
    Mutant(
        "crashing: a micro-batch given up as a whole",
        (
            Edit(
                ISOLATION,
                "        if alone is None:\n            self._encode(runs[:",
                "        if False:\n            self._encode(runs[:",
            ),
        ),
        (TEST_ISOLATION,),
    ),
    Mutant(
        "crashing: a run given up as a whole",
        (Edit(ISOLATION, "        elif alone.run.num_outputs > 1:\n", "        elif False:\n"),),
        (TEST_ISOLATION,),
    ),
    Mutant(
        "crashing: a play tried once",
        (Edit(ISOLATION, "        tries = self._max_tries if", "        tries = 1 if"),),
        (TEST_ISOLATION,),
    ),
    Mutant(
        "crashing: NaN answered",
        (Edit(ISOLATION, "        if not is_finite.all():\n", "        if False:\n"),),
        (TEST_ISOLATION,),
    ),
    Mutant(
        "crashing: a failed context stays cached",
        (Edit(ISOLATION, "            self._forget_failed(placed, result.failed)\n", "            pass\n"),),
        (TEST_ISOLATION,),
    ),
    Mutant(
        "crashing: a suspected member encoded with the others",
        (Edit(ISOLATION, "            self._suspects.add(alone.run.member)\n", "            pass\n"),),
        (TEST_ISOLATION,),
    ),
    Mutant(
        "bundle: an older announcement followed",
        (Edit(HOT_SWAP, "            if announcement.sequence <= self._seen:\n", "            if False:\n"),),
        (f"{TEST_HOT_SWAP}::test_an_older_number_is_refused",),
    ),
    Mutant(
        "bundle: changed bytes served",
        (Edit(BUNDLE, "        if found != expected:\n", "        if False:\n"),),
        (TEST_BUNDLE,),
    ),
    Mutant(
        "bundle: weights with NaN served",
        (Edit(CONTENTS, "            if not np.isfinite(array).all():\n", "            if False:\n"),),
        (TEST_BUNDLE,),
    ),
    Mutant(
        "bundle: golden queries not run",
        (Edit(VERIFICATION, "        check_golden(index, ", "        (lambda *_: None)(index, "),),
        (TEST_SWAP,),
    ),
    Mutant(
        "bundle: one that can encode no member serves",
        (Edit(MIGRATION, "        if num_bad > _MAX_BAD_RATIO * num_tried and", "        if False and"),),
        (TEST_MIGRATION,),
    ),
    Mutant(
        "bundle: one with other ground state serves",
        (
            Edit(
                "stream/pipeline/bundle_switch.py",
                "        if serving.domain.fingerprint != self.serving.domain.fingerprint:\n",
                "        if False:\n",
            ),
        ),
        (TEST_SWAP,),
    ),
    Mutant(
        "bundle: a fetched bundle hashed a second time at load",
        (Edit(HOT_SWAP, "            ref, device=settings.device", "            ref.path, device=settings.device"),),
        (f"{TEST_SWAP}::test_a_hot_swap_hashes_each_file_of_the_bundle_once",),
    ),
    Mutant(
        "bundle: a starting worker tries the newest ones only",
        (Edit(HOT_SWAP, "[version for version in known if version not in refused][", "known["),),
        (f"{TEST_HOT_SWAP}::test_a_worker_finds_the_one_bundle_that_can_serve_among_many",),
    ),
    Mutant(
        "bundle: a cache that cannot be written is the bundle's fault",
        (
            Edit(
                HOT_SWAP,
                "    except OSError as error:  # the cache's disk",
                "    except ZeroDivisionError as error:  # the cache's disk",
            ),
        ),
        (f"{TEST_HOT_SWAP}::test_a_store_that_cannot_be_reached_is_asked_again",),
    ),
    Mutant(
        "bundle: the fetch of another process removed",
        (Edit(STORE, "_locked(left, wait=False)", "nullcontext()"),),
        ("tests/unit/stream/cli/test_bundles_in_a_store.py",),
    ),
)
