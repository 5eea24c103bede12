"""Faults on the way from tables of others to plays, items and a drafted domain: rows lost or misread without a word."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant

HERE = "intentrec_core/own_data/"
PLAYS, ITEMS, TABLE, CHECKS = (
    f"{HERE}import_plays.py",
    f"{HERE}import_items.py",
    f"{HERE}foreign_table.py",
    f"{HERE}row_checks.py",
)
UNITS, STUDY, DRAFT, OF_ITEMS = (
    f"{HERE}time_units.py",
    f"{HERE}column_study.py",
    f"{HERE}draft_domain.py",
    f"{HERE}item_columns.py",
)
TEST = "tests/unit/intentrec_core/own_data/"
TEST_PLAYS, TEST_ITEMS, TEST_DRAFT = (
    f"{TEST}test_import_plays.py",
    f"{TEST}test_import_items.py",
    f"{TEST}test_draft_domain.py",
)

OWN_DATA = (
    Mutant(
        "own data: a row that cannot be split is dropped without a word",
        (Edit(TABLE, "            reject(RejectedRow(number, _MALFORMED, reason, row.text))\n", ""),),
        (TEST_PLAYS,),
    ),
    Mutant(
        "own data: rows are numbered as if none had been rejected",
        (Edit(TABLE, 'first + good + np.searchsorted(good_before, good, side="right")', "first + good"),),
        (TEST_PLAYS,),
    ),
    Mutant(
        "own data: blank lines of CSV do not count as rows",
        (Edit(TABLE, "                ignore_empty_lines=False,  # a row has the number that a spreadsheet shows\n", ""),),
        (TEST_PLAYS,),
    ),
    Mutant(
        "own data: the header of CSV is one line, whatever is quoted in it",
        (Edit(TABLE, "skip_rows=num_skipped,", "skip_rows=1 if options.has_header else 0,"),),
        (TEST_PLAYS,),
    ),
    Mutant(
        "own data: durations outside the limits are found row by row",
        (Edit(CHECKS, "pc.or_(pc.less(seconds, 0.0), pc.greater(seconds, MAX_DURATION_S))", "pc.is_nan(seconds)"),),
        (TEST_PLAYS,),
    ),
    Mutant(
        "own data: a column of items becomes numbers where the first block has numbers",
        (Edit(ITEMS, "        if len(kinds) > 1:\n", "        if not kinds:\n"),),
        (TEST_ITEMS,),
    ),
    Mutant(
        "own data: one bad row costs its whole block",
        (Edit(PLAYS, "        if rows.num_rows == 1:\n", "        if rows.num_rows:\n"),),
        (TEST_PLAYS,),
    ),
    Mutant(
        "own data: a time in another unit is taken",
        (
            Edit(
                UNITS,
                "        fits = pc.and_(pc.greater_equal(times, self.earliest_ms), pc.less(times, self.end_ms))\n",
                "        fits = pc.is_valid(times)\n",
            ),
        ),
        (TEST_PLAYS,),
    ),
    Mutant(
        "own data: an event id of the row's number",
        (Edit(PLAYS, 'pa.array([f"{hash64(text):016x}" for text in', 'pa.array([f"{at:016x}" for at, _ in enumerate('),
         Edit(PLAYS, "joined.to_pylist()])])", "joined.to_pylist())])])")),
        (TEST_PLAYS,),
    ),
    Mutant(
        "own data: the member's session is taken for an attribute of the item",
        (Edit(OF_ITEMS, " & (user[order][1:] != user[order][:-1])", ""), Edit(OF_ITEMS, "_AGREEING = 0.95", "_AGREEING = 0.5"),
         Edit(OF_ITEMS, "_SKILL = 0.8", "_SKILL = 0.0")),
        (f"{TEST_PLAYS}::test_a_column_of_the_member_is_none_of_the_item",),
    ),
    Mutant(
        "own data: the first row of an item counts",
        (Edit(ITEMS, "    _, first = np.unique(codes[::-1], return_index=True)\n    return np.sort(len(codes) - 1 - first)\n",
              "    _, first = np.unique(codes, return_index=True)\n    return np.sort(first)\n"),),
        (TEST_ITEMS,),
    ),
    Mutant(
        "own data: 007 becomes 7",
        (Edit(ITEMS, " and not pc.any(pc.match_substring_regex(given, _LEADING_ZERO)).as_py()", ""),),
        (TEST_ITEMS,),
    ),
    Mutant(
        "own data: the same item again counts as skill of its attributes",
        (Edit(STUDY, "        known &= seen.item[before] != seen.item[after]\n", "        pass\n"),),
        (TEST_DRAFT,),
    ),
    Mutant(
        "own data: a draft is checked on all plays, and not on those to learn from",
        (Edit(DRAFT, "(*_findings(domain, learned, catalogue), *doubts)", "doubts"),),
        (TEST_DRAFT,),
    ),
    Mutant(
        "own data: what cannot be predicted becomes an intent",
        (Edit(DRAFT, "or column.skill >= _SKILL,", "or True,"),),
        (TEST_DRAFT,),
    ),
    Mutant(
        "own data: ids become labels",
        (Edit(DRAFT, "    if num_known < _PLAYS_PER_VALUE * len(column.values):\n", "    if False:\n"),),
        (TEST_DRAFT,),
    ),
    Mutant(
        "own data: DEL stands bare in a domain file",
        (Edit(f"{HERE}domain_text.py", '.replace("\\x7f", "\\\\u007f")', ""),),
        (TEST_DRAFT,),
    ),
)  # fmt: skip
