"""Faults in what repairs state: members forgotten, dead letters sent again, histories verified."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant

FOLDING, PIPELINE, CONTROL = (
    "stream/pipeline/folding.py",
    "stream/pipeline/pipeline.py",
    "stream/wire/erasure_record.py",
)
LOG_WRITER, LOG_ERASURE = "stream/trainer/event_log_writer.py", "stream/trainer/event_log_erasure.py"
TEST_FORGET, TEST_FORGOTTEN_PLAYS = (
    "tests/unit/stream/wire/test_erasure_record.py",
    "tests/unit/stream/trainer/test_event_log_erasure.py",
)
TEST_VERIFY, TEST_REDRIVE = "tests/unit/stream/repair/test_state_verify.py", "tests/unit/stream/repair/test_redrive.py"

REPAIR = (
    Mutant(
        "forgotten: the history goes, the changelog keeps it",
        (Edit(FOLDING, "update(dict.fromkeys(tombstone_keys(self._layout, user_id)))", "update({})"),),
        (TEST_FORGET,),
    ),
    Mutant(
        "forgotten: a replayed request erases the history that began after it",
        (Edit(FOLDING, "if history is None or record.offset <= history.last_offset:", "if history is None:"),),
        (TEST_FORGET,),
    ),
    Mutant(
        "forgotten: plays of before, in the same checkpoint, are written behind the tombstones",
        (Edit(FOLDING, "            members[user_id].first_changed = -1\n", "            pass\n"),),
        (TEST_FORGET,),
    ),
    Mutant(
        "forgotten: what was cached stays",
        (
            Edit(
                PIPELINE,
                "            for member in folded.forgotten:\n                self._forget(member)\n",
                "            pass\n",
            ),
        ),
        (TEST_FORGET,),
    ),
    Mutant(
        "forgotten: records after the request are folded in its batch",
        (Edit(CONTROL, "    if not any(map(is_erasure_request, ", "    if True or not any(map(is_erasure_request, "),),
        (TEST_FORGET,),
    ),
    Mutant(
        "forgotten: a request in the wrong partition is carried out",
        (
            Edit(
                FOLDING,
                "            request = self._misplaced(request.user_id, partition) or request\n",
                "            pass\n",
            ),
        ),
        (TEST_FORGET,),
    ),
    Mutant(
        "forgotten: the request is noted after the segment that covers it",
        (
            Edit(LOG_WRITER, "        while self._erasures:  # before", "        while False:  # before"),
            Edit(
                LOG_WRITER,
                "        return num_written\n",
                "        while self._erasures:\n"
                "            erasure = self._erasures.pop(0)\n"
                "            self._write(self.root / erasure.file_name(self.topic), erasure.user_id.encode())\n"
                "        return num_written\n",
            ),
        ),
        (TEST_FORGOTTEN_PLAYS,),
    ),
    Mutant(
        "forgotten: plays after the request leave the event log too",
        (Edit(LOG_ERASURE, '(plays.column("offset").to_numpy() < before[member])', "(before[member] >= 0)"),),
        (TEST_FORGOTTEN_PLAYS,),
    ),
    Mutant(
        "forgotten: buffered plays stay",
        (Edit(LOG_WRITER, "if play.play.user_id != erasure.user_id]", "if True]"),),
        (TEST_FORGOTTEN_PLAYS,),
    ),
    Mutant(
        "forgotten: the trainer carries out requests that the worker refuses",
        (
            Edit(
                "stream/trainer/log_follower.py",
                "isinstance(request, ErasureRequest) and self._is_home(record, request.user_id)",
                "isinstance(request, ErasureRequest)",
            ),
        ),
        (TEST_FORGOTTEN_PLAYS,),
    ),
    Mutant(
        "redrive: dead letters of which only the start was kept are sent",
        (Edit("stream/repair/redrive.py", "        if dead_letter.is_cut:\n", "        if False:\n"),),
        (TEST_REDRIVE,),
    ),
    Mutant(
        "redrive: a dead letter that has a newer one is sent again",
        (
            Edit(
                "stream/repair/redrive.py",
                "        if dead_letter.place in self._failed_again:\n",
                "        if False:\n",
            ),
        ),
        (TEST_REDRIVE,),
    ),
    Mutant(
        "redrive: how often is not counted",
        (Edit("stream/repair/redrive.py", 'b"%d" % (dead_letter.num_redrives + 1)', 'b"1"'),),
        (TEST_REDRIVE,),
    ),
    Mutant(
        "redrive: the count is lost when the play fails again",
        (
            Edit(
                "stream/wire/dead_letter.py",
                "(name in KEPT_OF_OURS or not name.startswith(HEADER_PREFIX))",
                "not name.startswith(HEADER_PREFIX)",
            ),
        ),
        ("tests/contract/test_contracts.py", TEST_REDRIVE),
    ),
    Mutant(
        "verify: another last offset passes for the same",
        (
            Edit(
                "stream/repair/state_verify.py",
                "        if stored == refolded:\n",
                "        if stored and refolded and stored.events == refolded.events:\n",
            ),
        ),
        (TEST_VERIFY,),
    ),
    Mutant(
        "verify: members who began before the log does are called different",
        (Edit("stream/repair/state_verify.py", "done.first_offset and _began_before(", "False and _began_before("),),
        (TEST_VERIFY,),
    ),
)
