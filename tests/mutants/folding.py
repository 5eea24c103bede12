"""Wrong rules of the fold, on which a worker, its changelog and its replay all agree: only another fold can tell."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant

HISTORY, FOLDING = "intentrec_core/history/history.py", "stream/pipeline/folding.py"

TEST_NAIVE = "tests/property/test_naive_fold.py::test_the_product_folds_as_the_oracle_does"
TEST_TIES = "tests/property/test_naive_fold.py::test_plays_of_one_time_and_exact_repeats_are_folded_as_the_oracle_does"
TEST_REPEATS = "tests/unit/stream/pipeline/test_repeats.py"
TEST_HISTORY = "tests/unit/intentrec_core/history/test_history.py"
TEST_SESSIONS = "tests/property/test_naive_fold.py::test_the_play_that_opened_the_session_says_so"
TEST_GUARANTEE = "tests/property/test_delivery_machine.py::test_on_kafka"

_DUPLICATE = (
    Edit(
        HISTORY,
        "        if _holds(events, size, _EVENT_HASH, play.event_hash, len(events)):\n",
        "        if _holds(events[-size:], size, _EVENT_HASH, play.event_hash, len(events[-size:])):\n",
    ),
)
_REFUSED = "        if play.ts_ms <= self.newest_evicted_ms and (refused := self._refused(layout, play)):\n"
_LATE = (
    Edit(
        HISTORY,
        _REFUSED + "            return Fold(refused, num - 1, 0)\n",
        "        if num > 1 and play.ts_ms < _TIME.unpack_from(events, (num - 2) * size + _TIME_OFFSET)[0]:\n"
        "            return Fold(Outcome.TOO_LATE, num - 1, 0)\n",
    ),
)
#: What held before event ids of evicted plays were kept.
_OLDEST_HELD = (
    Edit(
        HISTORY,
        _REFUSED + "            return Fold(refused, num - 1, 0)\n",
        "        if self.anchor(layout) and play.ts_ms < _TIME.unpack_from(events, _TIME_OFFSET)[0]:\n"
        "            return Fold(Outcome.TOO_LATE, num - 1, 0)\n",
    ),
)
_ANCHOR = (
    Edit(HISTORY, "    windows_left = (count - 1) // window - 1\n", "    windows_left = (count - 1) // window\n"),
    Edit(HISTORY, "        if num < layout.context_size:\n", "        if num < layout.window:\n"),
)

FOLD_RULES = (
    Mutant("only the newest play is known as a duplicate: folds compared", _DUPLICATE, (TEST_NAIVE,)),
    Mutant("only the newest play is known as a duplicate: the guarantee", _DUPLICATE, (TEST_GUARANTEE,)),
    Mutant("every play out of order is too late: folds compared", _LATE, (TEST_NAIVE,)),
    Mutant("every play out of order is too late: the guarantee", _LATE, (TEST_GUARANTEE,)),
    Mutant(
        "a repeat of an evicted play at the time of the oldest one held applied again", _OLDEST_HELD, (TEST_REPEATS,)
    ),
    Mutant("lateness judged by the oldest play held: folds compared", _OLDEST_HELD, (TEST_NAIVE,)),
    Mutant(
        "event ids of evicted plays kept past the time of the newest one",
        (
            Edit(
                HISTORY,
                '            self.newest_evicted_ms, self.newest_evicted = newest_ms, b""\n',
                "            self.newest_evicted_ms = newest_ms\n",
            ),
        ),
        (TEST_TIES,),
    ),
    Mutant(
        "a new play folded in where not all evicted plays of its time are known",
        (
            Edit(
                HISTORY,
                "        return Outcome.TOO_LATE if len(known) == len(layout.unknown_events) else None\n",
                "        return None\n",
            ),
        ),
        (TEST_TIES,),
    ),
    Mutant(
        "a play that comes between evicted and held ones put into the wrong session",
        (
            Edit(
                HISTORY,
                "        return layout.ts_ms(self.events, 0) - self.newest_evicted_ms <= layout.gap_ms\n",
                "        return bool(self.anchor(layout))\n",
            ),
        ),
        (TEST_NAIVE, TEST_HISTORY),
    ),
    Mutant("a context of one window less: folds compared", _ANCHOR, (TEST_NAIVE,)),
    Mutant("a context of one window less: the guarantee", _ANCHOR, (TEST_GUARANTEE,)),
    Mutant(
        "a play keeps the offset of the last record, applied or not",
        (
            Edit(
                HISTORY,
                "            return Fold(Outcome.DUPLICATE, num - 1, 0)\n",
                "            self.last_offset = offset\n            return Fold(Outcome.DUPLICATE, num - 1, 0)\n",
            ),
        ),
        (TEST_NAIVE,),
    ),
    Mutant(
        "a gap of exactly session_gap_s opens a session",
        (
            Edit(
                "intentrec_core/kernels/context_rows.py",
                "ts_ms[place - 1] <= gap_ms:",
                "ts_ms[place - 1] < gap_ms:",
            ),
        ),
        (TEST_SESSIONS,),
    ),
    Mutant(
        "an erasure request obeyed in any partition",
        (
            Edit(
                FOLDING,
                "            request = self._misplaced(request.user_id, partition) or request\n",
                "            pass\n",
            ),
        ),
        (TEST_NAIVE,),
    ),
    Mutant(
        "two plays of one time both open a session",
        (
            Edit(
                "stream/pipeline/message_writer.py",
                "        return is_at_start and columns.session_event[row] == hash64(answer.play.event_id)\n",
                "        return is_at_start\n",
            ),
        ),
        (TEST_SESSIONS,),
    ),
    Mutant(
        "the oldest play held opens the session of an evicted play of the same time",
        (
            Edit(
                "intentrec_core/kernels/context_rows.py",
                "found[OPENER, i] = -1 if is_evicted else first",
                "found[OPENER, i] = first",
            ),
        ),
        ("tests/unit/stream/pipeline/test_sessions.py", TEST_SESSIONS),
    ),
    Mutant(
        "code is compiled when a micro-batch has one play in all",
        (Edit("stream/pipeline/sessions.py", "find_sessions(ts_ms.copy(), ", "find_sessions(ts_ms, "),),
        ("tests/unit/stream/pipeline/test_batch_rows.py::test_no_code_is_compiled_while_plays_are_answered",),
    ),
    Mutant(
        "the oldest play held opens no session",
        (Edit(FOLDING, "if carried else NOTHING_CARRIED", "if first else NOTHING_CARRIED"),),
        (TEST_SESSIONS,),
    ),
)
