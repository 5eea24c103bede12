"""Faults in how times and nulls are read: units mixed up, times beyond the limits taken, nulls that cost a play."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant

TIMES, CODEC, COLUMN = "intentrec_core/times.py", "stream/wire/codec.py", "intentrec_core/plays/time_column.py"
RELEASES, HISTORY = "intentrec_core/features/release_times.py", "intentrec_core/history/history.py"
FOLLOWER, REPLAY, WORLD = (
    "stream/trainer/log_follower.py",
    "stream/kafka/replay.py",
    "intentrec_core/simulation/simulate.py",
)

MESSAGES, TEXT_COLUMNS = "stream/wire/messages.py", "intentrec_core/plays/text_columns.py"

TEST_TIMES, TEST_CODEC = "tests/unit/intentrec_core/test_times.py", "tests/unit/stream/wire/test_codec.py"
TEST_COLUMN = "tests/unit/intentrec_core/plays/test_time_column.py"
CATALOGUE, TEST_CATALOGUE = (
    "intentrec_core/features/catalogue.py",
    "tests/unit/intentrec_core/features/test_catalogue.py",
)
TEST_RELEASES = "tests/unit/intentrec_core/features/test_release_times.py"
TEST_BOTH = "tests/property/test_trainer_reads_as_the_worker.py"

TEST_CACHED = "tests/unit/intentrec_core/engine/test_cached_times.py"

TIMES_AND_NULLS = (
    Mutant(
        "times: those of cached plays lose what is above 49 days",
        (Edit("intentrec_core/engine/cpu/block.py", "(high[place] * _HIGH_MS + low[place])", "low[place]"),),
        (TEST_CACHED,),
    ),
    Mutant(
        "times: those of cached plays are cut to a millisecond",
        (Edit("intentrec_core/engine/cpu/block.py", "np.rint(at_s * 1000.0)", "np.floor(at_s * 1000.0)"),),
        (TEST_CACHED,),
    ),
    Mutant(
        "times: a day in digits is no hint",
        (Edit(TIMES, " or _day_hint(ts_ms)\n", "\n"),),
        (TEST_COLUMN,),
    ),
    Mutant(
        "times: seconds taken for milliseconds",
        (
            Edit(CODEC, "    if not earliest_ms <= ts_ms <= record", "    if not ts_ms <= record"),
            Edit(CODEC, "    if not earliest_ms <= ts_ms < END_MS:\n", "    if ts_ms >= END_MS:\n"),
        ),
        (TEST_CODEC,),
    ),
    Mutant(
        "times: digits read as a date",
        (Edit(TIMES, "    if text.isdigit() and text.isascii():\n", "    if False:\n"),),
        (TEST_TIMES,),
    ),
    Mutant(
        "times: a second 60 taken anywhere",
        (Edit(TIMES, "    if later_ms == 1000 and ts_ms % _DAY_MS >= 1000:\n", "    if False:\n"),),
        (TEST_TIMES,),
    ),
    Mutant(
        "times: a unit named that does not fit",
        (Edit(TIMES, '    "nanoseconds (ns)": (1, 1_000_000),\n', '    "nanoseconds (ns)": (1, 100_000),\n'),),
        (TEST_TIMES,),
    ),
    Mutant(
        "times: the number of a timestamp taken for milliseconds, whatever its type",
        (Edit(COLUMN, '.cast(pa.timestamp("ms", kind.tz), safe=not finer).cast(pa.int64())', ".cast(pa.int64())"),),
        (TEST_COLUMN,),
    ),
    Mutant(
        "times: limits of stored plays not checked",
        (Edit(COLUMN, "    if len(wrong):\n        raise _refused(", "    if False:\n        raise _refused("),),
        (TEST_COLUMN,),
    ),
    Mutant(
        "times: releases in milliseconds taken for seconds",
        (Edit(RELEASES, "    if FIRST_RELEASE_MS <= 1000.0 * at_s < END_MS:\n", "    if True:\n"),),
        (TEST_RELEASES,),
    ),
    Mutant(
        "times: a timestamp of the record in a finer unit bounds nothing",
        (
            Edit(
                CODEC,
                "ts_ms <= record.timestamp + max_future_ms < END_MS:",
                "ts_ms <= record.timestamp + max_future_ms:",
            ),
            Edit(CODEC, "    if timestamp >= END_MS:\n", "    if False:\n"),
        ),
        (TEST_CODEC,),
    ),
    Mutant(
        "times: a text in a column of bytes is no text",
        (Edit(TEXT_COLUMNS, "(*texts, types.is_binary, types.is_large_binary, types.is_binary_view)", "texts"),),
        (TEST_COLUMN,),
    ),
    Mutant(
        "times: a whole number with a point refused on the topic",
        (Edit(MESSAGES, "        | Annotated[float, Meta(ge=0.0, lt=MAX_TS_MS, multiple_of=1.0)]\n", ""),),
        (TEST_CODEC, TEST_BOTH),
    ),
    Mutant(
        "times: a short text refused without a word on times",
        (Edit(MESSAGES, "min_length=1, max_length=MAX_TIME_LENGTH", "min_length=10, max_length=MAX_TIME_LENGTH"),),
        (TEST_CODEC,),
    ),
    Mutant(
        "times: beyond 64 bits without a row",
        (Edit(COLUMN, "if not earliest_ms <= ts_ms < end_ms]", "if ts_ms]"),),
        (TEST_COLUMN,),
    ),
    Mutant(
        "times: numbers of 32 bits, which are minutes apart, taken for milliseconds",
        (Edit(COLUMN, "    if pa.types.is_float64(kind) or", "    if pa.types.is_floating(kind) or"),),
        (TEST_COLUMN,),
    ),
    Mutant(
        "times: a fraction of a millisecond said to fit in milliseconds",
        (Edit(TIMES, "    if unit == _MILLISECONDS and number != int(number):", "    if False:"),),
        (TEST_COLUMN,),
    ),
    Mutant(
        "times: a timestamp of a catalogue that overflows is any date",
        (
            Edit(
                CATALOGUE,
                "    readable = pc.if_else(is_readable, column, pa.scalar(None, kind))\n",
                "    readable = column\n",
            ),
        ),
        (TEST_CATALOGUE,),
    ),
    Mutant(
        "times: releases of the years after 2100 taken",
        (Edit(RELEASES, "    if not FIRST_RELEASE_MS <= 1000.0 * at_s < END_MS:\n", "    if False:\n"),),
        (TEST_RELEASES,),
    ),
    Mutant(
        "times: a whole column of releases that cannot be read passes",
        (
            Edit(
                RELEASES,
                "        bad = [found for found in checked.left_out if",
                "        bad = [found for found in () if",
            ),
        ),
        (TEST_RELEASES,),
    ),
    Mutant(
        "times: a release of a live item in another unit is the newest of all",
        (
            Edit(
                "stream/pipeline/shown_items.py",
                "without_bad_releases(Catalogue(items), release_keys(domain))",
                "without_bad_releases(Catalogue(items), ())",
            ),
        ),
        ("tests/unit/stream/pipeline/test_shown_items.py",),
    ),
    Mutant(
        "nulls: counted among the entries of a context",
        (Edit(CODEC, "sum(entry is not None for entry in attributes.values())", "len(attributes)"),),
        (TEST_CODEC,),
    ),
    Mutant(
        "times: a simulated world goes on in the future",
        (
            Edit(
                WORLD, '                records = records[records["due_ms"] < self.end_ms]\n', "                pass\n"
            ),
        ),
        ("tests/unit/intentrec_core/simulation/test_simulate.py",),
    ),
    Mutant(
        "nulls: sent by a replay",
        (Edit(REPLAY, " if value is not None}", "}"),),
        ("tests/unit/stream/kafka/test_replay.py",),
    ),
    Mutant(
        "nulls: logged as a text by the trainer",
        (Edit(FOLLOWER, "play.attributes.items() if value is not None}", "play.attributes.items()}"),),
        (TEST_BOTH,),
    ),
    Mutant(
        "trainer: numbers in another form than the worker stores",
        (Edit(FOLLOWER, "{key: value_text(value) for", "{key: str(value) for"),),
        (TEST_BOTH,),
    ),
    Mutant(
        "trainer: a negative zero in the worker only",
        (Edit(HISTORY, "        return made + 0.0", "        return made"),),
        (TEST_BOTH,),
    ),
    Mutant(
        "trainer: truth values as texts are no numbers",
        (Edit(HISTORY, "            made = _TRUTHS.get(value, math.nan)\n", "            made = math.nan\n"),),
        (TEST_BOTH,),
    ),
)
