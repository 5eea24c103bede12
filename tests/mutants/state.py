"""Faults in histories, contexts, caches and lists."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant

HISTORY, CODEC, FOLDING = (
    "intentrec_core/history/history.py",
    "intentrec_core/history/changelog_codec.py",
    "stream/pipeline/folding.py",
)
ENGINE, PIPELINE, FILTERS = "intentrec_core/engine/engine.py", "stream/pipeline/pipeline.py", "index/filters.py"

TEST_HISTORY, TEST_GROUND_STATE = (
    "tests/unit/intentrec_core/history/test_history.py",
    "tests/property/test_ground_state.py",
)
TEST_FOLDING = "tests/property/test_folding.py"
TEST_PIPELINE, TEST_SWAP = "tests/unit/stream/pipeline/test_pipeline.py", "tests/unit/stream/bundles/test_hot_swap.py"
RETRIEVAL = "stream/pipeline/retrieval.py"
TEST_DEFAULT = f"{TEST_PIPELINE}::test_the_domain_s_default_holds_until_a_play_of_the_member_names_the_value"
TEST_HIDDEN = f"{TEST_PIPELINE}::test_a_list_that_a_filter_empties_says_which_one_also_of_popular_items"
TEST_FILTERS, TEST_PARITY = (
    "tests/unit/index/test_conditioning_and_filters.py",
    "tests/property/test_incremental_equals_full.py",
)

STATE = (
    Mutant(
        "a row number in the history",
        (
            Edit(
                HISTORY,
                "            _xxh3(item_id.encode()),\n",
                "            _ROWS.setdefault(item_id, len(_ROWS) + 1),\n",
            ),
            Edit(HISTORY, "_TIME = struct.Struct", "_ROWS: dict[str, int] = {}\n_TIME = struct.Struct"),
        ),
        (TEST_HISTORY, TEST_PIPELINE),
    ),
    Mutant(
        "wrong anchor",
        (Edit(HISTORY, "    windows_left = (count - 1) // window - 1\n", "    windows_left = count // window - 1\n"),),
        (TEST_HISTORY,),
    ),
    Mutant(
        "duplicates folded in",
        (
            Edit(
                HISTORY,
                "        if _holds(events, size, _EVENT_HASH, play.event_hash, len(events)):\n",
                "        if False:\n",
            ),
        ),
        (TEST_HISTORY,),
    ),
    Mutant(
        "duplicates folded in where another event's hash begins alike",
        (
            Edit(
                HISTORY,
                "        if events.startswith(wanted, at * size + column):\n            return True\n",
                "        return events.startswith(wanted, at * size + column)\n",
            ),
        ),
        (TEST_HISTORY,),
    ),
    Mutant(
        "replayed plays folded in again",
        (Edit(HISTORY, "        if offset <= self.last_offset:\n", "        if False:\n"),),
        (TEST_HISTORY, "tests/property/test_delivery_machine.py::test_without_transactions"),
    ),
    Mutant(
        "replayed plays not answered",
        (Edit(FOLDING, "                answers.append(self._repeat(record, play, member))\n", ""),),
        (TEST_PIPELINE,),
    ),
    Mutant(
        "late plays dropped without a trace",
        (Edit(FOLDING, "                work.set_aside_late(record)\n", ""),),
        (TEST_PIPELINE,),
    ),
    Mutant(
        "plays in the wrong partition folded in",
        (Edit(FOLDING, "        if home == partition:\n", "        if True:\n"),),
        (TEST_PIPELINE,),
    ),
    Mutant(
        "a history of the older schema takes no evicted play for known",
        (Edit(CODEC, "        history.newest_evicted = layout.unknown_events\n", ""),),
        (TEST_GROUND_STATE,),
    ),
    Mutant(
        "a lost record of evicted plays read as no evicted play",
        (
            Edit(
                CODEC,
                "            if evicted is None or anchor(_EVICTED_1.unpack_from(evicted)[1], layout.window) != start:\n",
                "            if evicted is None:\n                return history\n            if False:\n",
            ),
        ),
        (TEST_GROUND_STATE,),
    ),
    Mutant(
        "evicted plays not in the changelog",
        (Edit(CODEC, "    if anchor_moved or has_new_oldest:\n", "    if False:\n"),),
        (TEST_GROUND_STATE,),
    ),
    Mutant(
        "in the older schema a play that becomes the oldest one keeps the session of the one before",
        (Edit(CODEC, "    if anchor_moved or has_new_oldest:\n", "    if anchor_moved:\n"),),
        (f"{TEST_GROUND_STATE}::test_a_history_of_schema_1_is_carried_on_and_folds_in_no_play_twice",),
    ),
    Mutant(
        "a late play's block not in the changelog",
        (
            Edit(
                CODEC,
                "    first_block = (start + first_changed) // BLOCK_PLAYS\n",
                "    first_block = (history.count - 1) // BLOCK_PLAYS\n",
            ),
        ),
        (TEST_GROUND_STATE,),
    ),
    Mutant(
        "of a micro-batch's changes only the last one in the changelog",
        (
            Edit(
                FOLDING,
                "            member.first_changed = min(max(0, member.first_changed - evicted), position)\n",
                "            member.first_changed = position\n",
            ),
        ),
        (TEST_FOLDING,),
    ),
    Mutant(
        "a run keeps the context from before its last play",
        (Edit(FOLDING, "            open_run.context = member.history.events\n", ""),),
        (TEST_FOLDING,),
    ),
    Mutant(
        "a lost block restored as a shorter history",
        (Edit(CODEC, "        if expected != history.count:\n", "        if False:\n"),),
        (TEST_GROUND_STATE,),
    ),
    Mutant(
        "another domain's state accepted",
        (Edit("stream/delivery/start_offset.py", "    if marker.fingerprint != fingerprint:\n", "    if False:\n"),),
        ("tests/unit/stream/delivery/test_start_offset.py",),
    ),
    Mutant(
        "stale cache slot after a swap",
        (Edit("stream/pipeline/stale_members.py", "        if coming is self._previous:\n", "        if False:\n"),),
        (TEST_SWAP,),
    ),
    Mutant(
        "keys and values of other weights read",
        (
            Edit(
                "stream/pipeline/bundle_runner.py",
                "        self._encoder = IsolatingEncoder(serving.engine, layout, config.max_tries)\n",
                """        engine = serving.engine
        if before is not None and before.engine.num_slots == engine.num_slots:
            for own, other in zip(engine.encoder._cache, before.engine.encoder._cache, strict=True):
                own[...] = other
            engine._slots = before.engine._slots
        self._encoder = IsolatingEncoder(engine, layout, config.max_tries)
""",
            ),
        ),
        ("tests/unit/stream/pipeline/test_migration.py",),
    ),
    Mutant(
        "what was cached before the anchor moved read",
        (Edit(ENGINE, "part.anchor != request.anchor or ", ""),),
        (TEST_PARITY,),
    ),
    Mutant(
        "plays after a late one not encoded again",
        (
            Edit(
                ENGINE,
                "        unchanged = min(part.length, request.first_changed)\n",
                "        unchanged = min(part.length, num_plays - request.num_outputs)\n",
            ),
            # Each of the two alone is enough to notice it.
            Edit(ENGINE, "* size] != part.tail:", "* size] == b'':"),
        ),
        (TEST_PARITY,),
    ),
    Mutant(
        "a member's value that is not known filters nothing",
        (
            Edit(
                FILTERS,
                "    if value is None:\n        return np.False_\n",
                "    if value is None:\n        return np.True_\n",
            ),
        ),
        (TEST_FILTERS, TEST_PIPELINE),
    ),
    Mutant(
        "an item without the value is shown",
        (Edit(FILTERS, "    return column <= float(value) if", "    return ~(column > float(value)) if"),),
        (TEST_FILTERS,),
    ),
    Mutant(
        "the domain's default is not applied to members who have said nothing",
        (Edit(RETRIEVAL, "known[-1].item() if len(known) else default", "known[-1].item() if len(known) else None"),),
        (TEST_DEFAULT,),
    ),
    Mutant(
        "a list that a filter empties does not say so",
        (
            Edit(
                RETRIEVAL,
                "return replace(ranked, hidden_by=self._hidden_by(empty, values, items.filters)) if len(empty) else ranked",
                "return ranked",
            ),
        ),
        (TEST_HIDDEN,),
    ),
    Mutant(
        "a filter without its column skipped",
        (
            Edit(
                FILTERS,
                '                raise ValueError(f"filter {rule.kind} {rule.key}: there is no item column with this name")\n',
                "                continue\n",
            ),
        ),
        (TEST_FILTERS,),
    ),
)
