"""Faults in what is believed of plays and catalogue."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant

ATTRIBUTES, FINDINGS = "intentrec_core/features/attributes.py", "intentrec_core/plays/findings.py"
PROFILE = "intentrec_core/plays/profile.py"
STEP, OUTPUT_ROWS = "intentrec_core/engine/cpu/step.py", "intentrec_core/engine/output_rows.py"
TRAIN, RETRAIN, TEXTS = (
    "intentrec_core/training/train.py",
    "stream/trainer/retrain.py",
    "intentrec_core/plays/text_columns.py",
)

TEST_CATALOGUE, TEST_PROFILE = (
    "tests/unit/intentrec_core/features/test_catalogue.py",
    "tests/unit/intentrec_core/plays/test_profile.py",
)
TEST_REPLAY = "tests/unit/stream/kafka/test_replay.py"
TEST_ENCODERS, TEST_RETRAIN = "tests/parity/test_encoders.py", "tests/unit/stream/trainer/test_retrain.py"
CATALOGUE = "intentrec_core/features/catalogue.py"
RELEASE_TIMES, TEST_RELEASE_TIMES = (
    "intentrec_core/features/release_times.py",
    "tests/unit/intentrec_core/features/test_release_times.py",
)
ITEMS_WRITER, TEST_ITEMS_WRITER = "stream/kafka/items_writer.py", "tests/unit/stream/kafka/test_items_writer.py"
TEST_LIVE_CATALOGUE = "tests/integration/test_live_catalogue.py"
LEARNING, BUNDLE_STORE, TEST_CLI = (
    "stream/cli/learning.py",
    "stream/cli/bundle_store.py",
    "tests/unit/stream/cli/test_cli.py",
)
STORE, TEST_STORE = "intentrec_core/bundle/store.py", "tests/unit/stream/cli/test_bundles_in_a_store.py"
VERIFICATION, TEST_BUILDER = "stream/bundles/verification.py", "tests/unit/stream/bundles/test_builder.py"
TEST_RETRAIN_PROCESS = "tests/unit/stream/trainer/test_retrain_process.py"
TEST_TRAIN, TEST_TABLE = (
    "tests/unit/intentrec_core/training/test_train.py",
    "tests/unit/intentrec_core/plays/test_table.py",
)

DATA = (
    Mutant(
        "a nested value is kept",
        (Edit(ATTRIBUTES, '        raise CannotBeKept("a nested value")\n', "        return value\n"),),
        (TEST_CATALOGUE,),
    ),
    Mutant(
        "the search for a number tries every split of the digits",
        (Edit(ATTRIBUTES, r"[+-]?(\d+(\.\d*)?|\.\d+)([eE]", r"[+-]?(\d+\.?\d*|\.\d+)([eE]"),),
        (TEST_CATALOGUE,),
    ),
    Mutant(
        "one release in another unit refuses a whole catalogue",
        (Edit(RELEASE_TIMES, "MAX_BAD_RATIO = 0.05\n", "MAX_BAD_RATIO = 0.0\n"),),
        (TEST_RELEASE_TIMES,),
    ),
    Mutant(
        "a text where a number is declared fails the run",
        (
            Edit(
                RETRAIN,
                "    except DataError as error:\n        return msgspec",
                "    except BundleError as error:\n        return msgspec",
            ),
        ),
        (TEST_RETRAIN,),
    ),
    Mutant(
        "a text where a number is declared is an internal error",
        (Edit("intentrec_core/plays/members.py", "        raise DataError(\n", "        raise ValueError(\n"),),
        (TEST_RETRAIN, "tests/unit/stream/cli/test_bundle_build.py"),
    ),
    Mutant(
        "NaN in a column of numbers is kept",
        (Edit(CATALOGUE, " and not _may_have_nan(column)", ""),),
        (TEST_CATALOGUE,),
    ),
    Mutant(
        "a bundle gets any number of columns",
        (Edit(CATALOGUE, "MAX_NAMES = 1_000\n", "MAX_NAMES = 1_000_000\n"),),
        (TEST_CATALOGUE,),
    ),
    Mutant(
        "a row that cannot be read withdraws its item",
        (Edit(ITEMS_WRITER, "    if not _has_unread_rows(left_out):\n", "    if True:\n"),),
        (TEST_ITEMS_WRITER,),
    ),
    Mutant(
        "an item is put by hand in part",
        (Edit(ITEMS_WRITER, "    for found in catalogue.left_out:\n", "    for found in ():\n"),),
        (TEST_ITEMS_WRITER,),
    ),
    Mutant(
        "a fault in a training run leaves no result",
        (Edit(RETRAIN, "    except Exception as error:  #", "    except IntentRecError as error:  #"),),
        (TEST_RETRAIN_PROCESS,),
    ),
    Mutant(
        "Arrow guesses the type of mixed values",
        (Edit(ATTRIBUTES, " - {type(None)}}) <= 1:\n", " - {type(None)}}) <= 9:\n"),),
        (TEST_CATALOGUE,),
    ),
    Mutant(
        "an intent without a known label passes",
        (Edit(FINDINGS, "yield Finding(field.intent, f", "yield Finding(False, f"),),
        (TEST_PROFILE,),
    ),
    Mutant(
        "a filter that lets nothing through passes",
        (Edit(FINDINGS, "    elif not seen.shown:\n", "    elif False:\n"),),
        (TEST_PROFILE,),
    ),
    Mutant(
        "the trainer trains on meaningless data",
        (Edit(RETRAIN, "    if meaningless:\n", "    if False:\n"),),
        (TEST_RETRAIN,),
    ),
    Mutant(
        "an untrained head leads in the compiled step",
        (Edit(STEP, " + heads.primary_bias[m] > score[leading] + heads.primary_bias[leading]:", " > score[leading]:"),),
        (TEST_ENCODERS,),
    ),
    Mutant(
        "an untrained head leads in the torch model",
        (Edit(OUTPUT_ROWS, "(output.alpha_BTM + model.primary_bias)", "output.alpha_BTM"),),
        (TEST_ENCODERS,),
    ),
    Mutant(
        "every head counts as trained",
        (Edit(TRAIN, "    model.set_untrained_heads(untrained)\n", "    model.set_untrained_heads(())\n"),),
        (TEST_TRAIN,),
    ),
    Mutant(
        "one known label trains a head",
        (Edit(TRAIN, "not known or known < enough", "not known"),),
        (TEST_TRAIN,),
    ),
    Mutant(
        "a constant intent passes where it is seldom known",
        (Edit(FINDINGS, "field.intent and profile.num_plays >= ENOUGH", "field.intent and num_known >= ENOUGH"),),
        (TEST_PROFILE,),
    ),
    Mutant(
        "an intent that always has the same two labels passes",
        (
            Edit(
                FINDINGS,
                "    always = _always(field, seen, num_known)\n",
                '    always = "label" * (seen.num_labels_found == 1)\n',
            ),
        ),
        (TEST_PROFILE,),
    ),
    Mutant(
        "a field that is constant but for one play passes",
        (Edit(FINDINGS, "seen.plays[0] <= (1 - CONSTANT_RATIO) * profile.num_plays", "not seen.plays[0]"),),
        (TEST_PROFILE,),
    ),
    Mutant(
        "durations that are all alike pass",
        (Edit(FINDINGS, "profile.num_usual_durations >= CONSTANT_RATIO * known", "False"),),
        (TEST_PROFILE,),
    ),
    Mutant(
        "items that a filter shows to nobody pass",
        (Edit(FINDINGS, "if seen.num_unreached > few", "if False and seen.num_unreached > few"),),
        (TEST_PROFILE,),
    ),
    Mutant(
        "a catalogue file may hide everything by a filter",
        (Edit(ITEMS_WRITER, "            filters=domain.filters,\n", ""),),
        (TEST_LIVE_CATALOGUE,),
    ),
    Mutant(
        "a row that is as it was is written over what was put by hand",
        (Edit(ITEMS_WRITER, "before.file_row in (None, digest)", "before.file_row is None"),),
        (TEST_ITEMS_WRITER, TEST_LIVE_CATALOGUE),
    ),
    Mutant(
        "what is put by hand does not say what the file had",
        (Edit(ITEMS_WRITER, "file_row=_file_row(before)", "file_row=None"),),
        (TEST_LIVE_CATALOGUE,),
    ),
    Mutant(
        "a catalogue that cannot be used fails the run",
        (
            Edit(
                RETRAIN,
                "    try:\n        inputs = _inputs(job, running, known)\n",
                "    inputs = _inputs(job, running, known)\n    try:\n",
            ),
        ),
        (TEST_RETRAIN,),
    ),
    Mutant(
        "the trainer leaves half bundles in the store",
        (Edit(RETRAIN, "    remove_leftovers(store)\n", ""),),
        (TEST_RETRAIN,),
    ),
    Mutant(
        "the command train leaves half bundles in the store",
        (Edit(BUNDLE_STORE, "    remove_leftovers(store)\n", ""),),
        (TEST_CLI,),
    ),
    Mutant(
        "an index that cannot be built is found after training",
        (Edit(LEARNING, "    _check_index(settings, data_set, share)\n", ""),),
        (TEST_CLI,),
    ),
    Mutant(
        "a store that takes no bundle is found after training",
        (Edit(LEARNING, "    open_store(settings).check_writable()\n", ""),),
        (TEST_CLI,),
    ),
    Mutant(
        "a broker that is away is found after training",
        (Edit(LEARNING, "        newest_announced(settings)  #", "        pass  #"),),
        (TEST_CLI,),
    ),
    Mutant(
        "the trainer finds after training that a store takes no bundle",
        (Edit(RETRAIN, "    store.check_writable()\n", ""),),
        (TEST_RETRAIN,),
    ),
    Mutant(
        "what a store is tried with stays there",
        (Edit(STORE, "        for path in absent:\n", "        for path in ():\n"),),
        (TEST_STORE,),
    ),
    Mutant(
        "a bundle is built whose messages cannot be sent",
        (Edit(VERIFICATION, "    check_message_sizes(\n", "    (lambda *_, **__: None)(\n"),),
        (TEST_BUILDER,),
    ),
    Mutant(
        "a stored play with an empty action is sent",
        (Edit(TEXTS, "pc.if_else(pc.equal(length, 0), pa.scalar(None, pa.string()), texts)", "texts"),),
        (TEST_REPLAY,),
    ),
    Mutant(
        "a stored play with an id that is too long is sent",
        (Edit(TEXTS, "pc.or_(pc.equal(length, 0), pc.greater(length, MAX_ID_BYTES))", "pc.equal(length, 0)"),),
        (TEST_REPLAY,),
    ),
    Mutant(
        "values that hide every item are not counted",
        (Edit(PROFILE, "num_empty=self._num_empty(place)", "num_empty=0"),),
        (TEST_PROFILE,),
    ),
    Mutant(
        "rare values are not looked at where the frequent ones show nothing",
        (Edit(PROFILE, "_MAX_COMBINATIONS and any(shares)", "_MAX_COMBINATIONS"),),
        (TEST_PROFILE,),
    ),
    Mutant(
        "ids of 32 bits that are one number are one id",
        (Edit("intentrec_core/parquet.py", "32: 2**24,", "32: 2**53,"),),
        (TEST_TABLE, TEST_CATALOGUE),
    ),
    Mutant(
        "a null in a dictionary is no null",
        (
            Edit(
                "intentrec_core/plays/table.py", "        if pa.types.is_dictionary(column.type):", "        if False:"
            ),
        ),
        (TEST_TABLE,),
    ),
    Mutant(
        "a duration that is NaN is a duration",
        (Edit(TEXTS, "if is_number else column", "if False else column"),),
        (TEST_TABLE,),
    ),
    Mutant(
        "a stored text that is no UTF-8 is an internal error",
        (Edit(TEXTS, "texts.validate(full=True)", "texts.validate()"),),
        (TEST_TABLE,),
    ),
    Mutant(
        "replay sends a number that the worker refuses",
        (Edit("stream/cli/data_source.py", "        check_attributes(EventLayout(domain), plays)\n", ""),),
        ("tests/unit/stream/cli/test_cli.py",),
    ),
    Mutant(
        "a file without the column that a filter reads empties all lists",
        (Edit(ITEMS_WRITER, "_MAX_LOST_PERCENT = 20\n", "_MAX_LOST_PERCENT = 100\n"),),
        (TEST_ITEMS_WRITER,),
    ),
    Mutant(
        "a title that cannot be shown is lost in silence",
        (
            Edit(
                CATALOGUE,
                '            found.add("title", str(error), f"{place}, item {item_id!r}", _ALLOWED_TITLES)\n',
                "",
            ),
        ),
        (TEST_CATALOGUE,),
    ),
)
