"""Faults by which a table of counts would say something else than the log, be half of one, or reach lists in part."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant

_FOLD, _KERNEL = "intentrec_core/engine/item_counts.py", "intentrec_core/kernels/decayed_counts.py"
_COUNTER, _WRITER = "stream/trainer/play_counter.py", "stream/trainer/counts_writer.py"
_RECORD, _BUNDLE = "stream/wire/item_counts_record.py", "stream/pipeline/bundle_counts.py"
_COUNTED, _SWITCH = "index/counted.py", "stream/pipeline/bundle_switch.py"
_TEST_FOLD = ("tests/unit/intentrec_core/engine/test_item_counts.py",)
_TEST_LOG = ("tests/property/test_play_counts_of_the_log.py",)
_TEST_RECORD = ("tests/unit/stream/wire/test_item_counts_record.py",)
_TEST_WRITER = ("tests/unit/stream/trainer/test_counts_writer.py",)
_TEST_PIPELINE = ("tests/unit/stream/pipeline/test_bundle_counts.py",)
_TEST_INDEX = ("tests/unit/index/test_counted.py",)

ITEM_COUNTS = (
    Mutant(
        "a play that is older than the newest one of its item is counted whole",
        (Edit(_KERNEL, "_decayed(1.0, at / 1000.0, newest / 1000.0, decays_s[d])", "1.0"),),
        _TEST_FOLD,
    ),
    Mutant(
        "the age of an item is that of its newest play",
        (Edit(_FOLD, '(at_ms - entries["first_ms"])', '(at_ms - entries["newest_ms"])'),),
        _TEST_FOLD,
    ),
    Mutant(
        "plays that a table has are counted again after a restart",
        (Edit(_COUNTER, "if offset >= start and offset - last", "if offset - last"),),
        _TEST_LOG,
    ),
    Mutant(
        "a repeat across a restart counts twice",
        (Edit(_COUNTER, "max(0, offset - REPEAT_OFFSETS) for", "offset for"),),
        _TEST_LOG,
    ),
    Mutant(
        "plays that the event log has beyond the table are not counted",
        (Edit(_COUNTER, "            self._take(partition, zip(*columns, strict=True), next_offset)\n", ""),),
        _TEST_LOG,
    ),
    Mutant(
        "a head counts although its blocks are other ones",
        (Edit(_RECORD, "if any(own != named for", "if any(not own for"),),
        _TEST_RECORD,
    ),
    Mutant(
        "a lower number replaces a table",
        (Edit(_RECORD, "head.sequence <= self.newest.head.sequence", "False"),),
        _TEST_RECORD,
    ),
    Mutant(
        "a block whose write failed is not written again",
        (Edit(_WRITER, "        self._unwritten.update(numbers)\n", ""),),
        _TEST_WRITER,
    ),
    Mutant(
        "a number is used again after a head whose write failed",
        (
            Edit(
                _WRITER,
                "        self._sequence = head.sequence\n        sent:",
                "        sent:",
            ),
            Edit(
                _WRITER,
                "        self._head_s, self._written = now",
                "        self._sequence = head.sequence\n        self._head_s, self._written = now",
            ),
        ),
        _TEST_WRITER,
    ),
    Mutant(
        "a trainer that lost the lead writes a table",
        (Edit(_WRITER, '        await self._confirm(f"counts-{head.sequence}")\n', ""),),
        _TEST_WRITER,
    ),
    Mutant(
        "unchanged blocks are never written again",
        (Edit(_WRITER, "now_s - self._whole_s >= _WHOLE_EVERY_S", "not self._written"),),
        _TEST_WRITER,
    ),
    Mutant(
        "items with high counts are found only where the vectors find them",
        (Edit(_COUNTED, "known = known[columns[known].any(axis=1)]", "known = known[:0]"),),
        _TEST_INDEX,
    ),
    Mutant(
        "items that are new to a bundle have no counts",
        (Edit(_BUNDLE, "            columns[rows] = _with_popularity(self.serving, of_added, shares)\n", ""),),
        _TEST_PIPELINE,
    ),
    Mutant(
        "the coming bundle keeps the table that it was looked up with",
        (
            Edit(
                _SWITCH,
                "for runner in self._runners:\n            runner.counts",
                "for runner in self._runners[:1]:\n            runner.counts",
            ),
        ),
        _TEST_PIPELINE,
    ),
    Mutant(
        "a filter that allows few items misses the best of them",
        (
            Edit(
                _COUNTED,
                "allowed_ratios(self.num_items, len(queries), allowed) < MIN_ALLOWED_RATIO",
                "np.zeros(len(queries), dtype=np.bool_)",
            ),
        ),
        _TEST_INDEX,
    ),
    Mutant(
        "an item with high counts is listed although it is hidden",
        (Edit(_COUNTED, "self._place[rows[self._place[rows] > 0]].astype(np.int64)", "rows[:0]"),),
        _TEST_INDEX,
    ),
)
