"""Messages and their headers: what subscribers filter, trace and attribute by."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant

MESSAGES, WRITER, HEADERS, SIZES = (
    "stream/wire/messages.py",
    "stream/pipeline/message_writer.py",
    "stream/wire/output_headers.py",
    "stream/wire/sizes.py",
)
REASONS = "stream/pipeline/reasons.py"
TEST_REASONS = "tests/unit/stream/pipeline/test_reasons.py"
PAGE_ROWS, ROW_ORDER = "stream/pipeline/page_rows.py", "stream/wire/row_order.py"
TEST_PAGE_ROWS = "tests/unit/stream/pipeline/test_page_rows.py"
TEST_ROW_ORDER = "tests/unit/stream/wire/test_row_order.py"
TEST_HEADERS = "tests/unit/stream/wire/test_output_headers.py"
TEST_WRITER = "tests/unit/stream/pipeline/test_message_writer.py"
TEST_SIZES = "tests/unit/stream/wire/test_sizes.py"
TEST_SESSIONS = "tests/unit/stream/pipeline/test_sessions.py"
TEST_BUNDLES = "tests/unit/stream/bundles/test_message_sizes.py"
TEST_CONTRACTS = "tests/contract/test_contracts.py"

OUTPUT_MESSAGES = (
    Mutant(
        "messages: the trace of a play ends at the worker",
        (Edit(HEADERS, "        if record.headers:\n", "        if False:\n"),),
        (TEST_HEADERS,),
    ),
    Mutant(
        "messages: the header says that no primary intent shifts",
        (Edit(HEADERS, "self._shifted[shifted], ", "self._shifted[False], "),),
        (TEST_HEADERS,),
    ),
    Mutant(
        "messages: a subject that is no text",
        (Edit(HEADERS, "user_id.isprintable() or not _NO_TEXT.search(user_id)", "True"),),
        (TEST_HEADERS,),
    ),
    Mutant(
        "messages: a trace state of any length",
        (Edit(HEADERS, "len(state) > MAX_TRACE_STATE_BYTES or ", ""),),
        (TEST_HEADERS,),
    ),
    Mutant(
        "messages: headers are larger than the room that is left for them",
        (Edit(SIZES, "OVERHEAD_BYTES = 3072\n", "OVERHEAD_BYTES = 1024\n"),),
        (TEST_SIZES,),
    ),
    Mutant(
        "messages: lists of two bundles for one play have one name",
        (Edit(WRITER, "{source.partition}-{source.offset}-{bundle}", "{source.partition}-{source.offset}"),),
        (TEST_WRITER,),
    ),
    Mutant(
        "messages: queries are published though nobody asked",
        (Edit(WRITER, "ranked.queries if self._publishes_query else None", "ranked.queries"),),
        (TEST_WRITER,),
    ),
    Mutant(
        "messages: a popular list has a query that it was not searched with",
        (Edit(WRITER, ", absent=ranked.popular)", ")"),),
        (TEST_WRITER,),
    ),
    Mutant(
        "messages: the vectors of a message are not counted before a bundle serves",
        (Edit(SIZES, "    return bytes(4 * width) if width else UNSET\n", "    return UNSET\n"),),
        (TEST_BUNDLES,),
    ),
    Mutant(
        "messages: a vector in another byte order",
        (Edit(WRITER, '"<f4"', '">f4"'),),
        (TEST_WRITER,),
    ),
    Mutant(
        "messages: a closed session counts only the plays that are still held",
        (
            Edit(
                "intentrec_core/kernels/context_rows.py",
                "0 if is_evicted else first - first_before",
                "first - first_before",
            ),
        ),
        (TEST_SESSIONS, TEST_WRITER),
    ),
    Mutant(
        "messages: a session of another member is closed",
        (
            Edit(
                "intentrec_core/kernels/context_rows.py", "found[HELD, i] = first > start", "found[HELD, i] = first > 0"
            ),
        ),
        (TEST_SESSIONS, TEST_WRITER),
    ),
    Mutant(
        "messages: an inserted play closes a session with the intent of another play",
        (Edit(WRITER, "-1 if opener.outcome is Outcome.INSERTED else columns", "columns"),),
        (TEST_WRITER,),
    ),
    Mutant(
        "messages: plays answered together close a session with the intent of the last of them",
        (Edit(WRITER, "columns.previous_primary[its_row]\n", "columns.previous_primary[row]\n"),),
        (TEST_WRITER,),
    ),
    Mutant(
        "messages: a label that fills a message is named twice",
        (
            Edit(
                SIZES,
                "    return IntentLabel(head, label) if is_short else UNSET\n",
                "    return IntentLabel(head, label)\n",
            ),
        ),
        (TEST_SIZES,),
    ),
    Mutant(
        "messages: a part of a score counts as it is, not against that of an average item",
        (Edit(REASONS, "(vectors - self._average_D) * query", "vectors * query"),),
        (TEST_REASONS,),
    ),
    Mutant(
        "messages: the reason names an item that was withdrawn",
        (Edit(REASONS, "        held_RH[~answered.items.shown[held_RH]] = 0\n", ""),),
        (TEST_REASONS,),
    ),
    Mutant(
        "messages: the intent names a label that the item has not",
        (Edit(REASONS, "np.where(has, vectors[:, own] * query[:, own], -np.inf).argmax", "query[:, own].argmax"),),
        (TEST_REASONS,),
    ),
    Mutant(
        "messages: an item that nobody played is new",
        (Edit(REASONS, "columns.any(axis=1) & ", ""),),
        (TEST_REASONS,),
    ),
    Mutant(
        "messages: titles are cut where leaving reasons out is enough",
        (Edit(SIZES, "    if items and len(plain) <= max_bytes:\n", "    if False:\n"),),
        (TEST_SIZES,),
    ),
    Mutant(
        "rows: an item is in every row that it fits",
        (Edit(PAGE_ROWS, "                used.update(chosen)\n", ""),),
        (TEST_PAGE_ROWS,),
    ),
    Mutant(
        "rows: what a member holds is shown although a filter hides it",
        (Edit(PAGE_ROWS, "found = held if mask is None else held[mask[held]]", "found = held"),),
        (TEST_PAGE_ROWS,),
    ),
    Mutant(
        "rows: the declared order, whatever the member is in the mood for",
        (Edit(PAGE_ROWS, "in by_weight(planned, lambda each: each.weight):", "in planned:"),),
        (TEST_PAGE_ROWS,),
    ),
    Mutant(
        "rows: a row jumps for any difference",
        (Edit(ROW_ORDER, "weight(row) > MARGIN * weight(above)", "weight(row) > weight(above)"),),
        (TEST_ROW_ORDER,),
    ),
    Mutant(
        "rows: a screen forgets the order that it shows",
        (Edit(ROW_ORDER, "sorted(rows, key=lambda row: place.get(name(row), len(place)))", "rows"),),
        (TEST_ROW_ORDER,),
    ),
    Mutant(
        "rows: nobody has played what is new to the bundle",
        (Edit(PAGE_ROWS, "        if answered.item_counts is not None:\n", "        if False:\n"),),
        (f"{TEST_PAGE_ROWS}::test_what_is_popular_counts_items_that_are_new_to_the_bundle",),
    ),
    Mutant(
        "rows: they make a message too large",
        (Edit(SIZES, "items=items, rows=UNSET)", "items=items)"),),
        (TEST_PAGE_ROWS,),
    ),
    Mutant(
        "messages: a value that readers do not know",
        (Edit(MESSAGES, 'Literal["none", "popular"]', 'Literal["none", "popular", "trending"]'),),
        (TEST_CONTRACTS,),
    ),
)
