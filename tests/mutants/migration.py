"""Faults in the migration of members from one bundle to another."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant

MODULE, MOVED, PIPELINE = (
    "stream/pipeline/migration.py",
    "stream/pipeline/stale_members.py",
    "stream/pipeline/pipeline.py",
)
SWITCH = "stream/pipeline/bundle_switch.py"
TEST_MIGRATION, TEST_FAILS = (
    "tests/unit/stream/pipeline/test_migration.py",
    "tests/unit/stream/pipeline/test_migration_aborts.py",
)

MIGRATION = (
    Mutant(
        "migration: a member moves who cannot be encoded",
        (Edit(MODULE, "            if not is_good:\n", "            if False:\n"),),
        (TEST_FAILS,),
    ),
    Mutant(
        "migration: a member moves before its whole context is encoded",
        (Edit(MODULE, "            elif is_complete:\n", "            elif True:\n"),),
        (TEST_MIGRATION,),
    ),
    Mutant(
        "migration: more members moved than can be cached",
        (Edit(MODULE, "            if not engine.has_room(parts_by_size):\n", "            if False:\n"),),
        (TEST_MIGRATION,),
    ),
    Mutant(
        "migration: its encoding counted as that of plays",
        (Edit(MODULE, "        self.coming.leave_uncounted()\n", ""),),
        (TEST_MIGRATION,),
    ),
    Mutant(
        "migration: the other slice of a micro-batch lost",
        (
            Edit(
                SWITCH, "                slices.append((self._migration.coming, migrated))\n", "                pass\n"
            ),
        ),
        (TEST_MIGRATION,),
    ),
    Mutant(
        "migration: a forgotten member stays cached by the coming bundle",
        (Edit(SWITCH, "            self._migration.coming.forget(member)\n", "            pass\n"),),
        ("tests/unit/stream/wire/test_erasure_record.py",),
    ),
    Mutant(
        "migration: after an abort, the cache of members with late plays used",
        (Edit(MOVED, "        _forget(old, self._since_migration)\n", ""),),
        (TEST_FAILS,),
    ),
    Mutant(
        "migration: the cache of a partly encoded member used after a late play",
        (Edit(MOVED, "        _forget(new, self._since_migration, but=migrated)\n", ""),),
        (TEST_FAILS,),
    ),
    Mutant(
        "migration: a rollback uses the cache of members queued at the swap",
        (
            Edit(
                SWITCH,
                "drop that cache.\n        self._stale.add(queued)\n",
                "drop that cache.\n",
            ),
        ),
        ("tests/unit/stream/pipeline/test_prefill.py",),
    ),
    Mutant(
        "migration: items watched meanwhile shown by the old bundle after an abort",
        (
            Edit(
                PIPELINE,
                "        self._forgotten += self._bundles.abort()\n",
                "        self._bundles.abort()\n",
            ),
        ),
        (TEST_FAILS,),
    ),
    Mutant(
        "migration: a late play queued at its start unknown to the old bundle",
        (
            Edit(
                SWITCH,
                "may never see them.\n        self._stale.add(queued)\n",
                "may never see them.\n",
            ),
        ),
        (TEST_FAILS,),
    ),
    Mutant(
        "migration: a member who plays much delays the others",
        (Edit(MODULE, "                if not num_known:", "                if False:"),),
        (TEST_MIGRATION,),
    ),
    Mutant(
        "migration: a member who becomes active meanwhile does not migrate",
        (Edit(MODULE, "        elif not self._queue:", "        elif False:"),),
        (TEST_MIGRATION,),
    ),
    Mutant(
        "migration: a rollback waits for its end",
        (Edit("stream/bundles/hot_swap.py", "self._wanted[0].bundle == old:", "False:"),),
        ("tests/unit/stream/bundles/test_hot_swap.py",),
    ),
    Mutant(
        "migration: predictions from before it not scored",
        (Edit("stream/pipeline/responder.py", "None if before is None else before._scorer", "None"),),
        (TEST_MIGRATION,),
    ),
    Mutant(
        "migration: a late play within the encoded context not noticed",
        (Edit("intentrec_core/engine/engine.py", "* size] != part.tail:", "* size] == b'':"),),
        (TEST_MIGRATION,),
    ),
    Mutant(
        "migration: a rollback encodes every member again",
        (Edit(MODULE, "min(engine.num_cached_plays(member, anchor), num_plays)", "0"),),
        (TEST_MIGRATION,),
    ),
    Mutant(
        "migration: only the current bundle's responder forgets",
        (
            Edit(
                "stream/pipeline/responder.py",
                "    for responder in batch.responders:\n",
                "    for responder in batch.responders[:1]:\n",
            ),
        ),
        (TEST_MIGRATION,),
    ),
    Mutant(
        "outputs of a partition out of source order",
        (
            Edit(
                "stream/pipeline/responder.py",
                "            outputs[folded.partition].sort(key=_source_offset)\n",
                "            pass\n",
            ),
        ),
        ("tests/unit/stream/pipeline/test_isolation.py",),
    ),
    Mutant(
        "members to forget lost with a micro-batch that raises",
        (
            Edit(
                PIPELINE,
                "            self._forgotten = [member for batch in encoded for member in batch.forgotten] + self._forgotten\n",
                "",
            ),
        ),
        ("tests/unit/stream/pipeline/test_isolation.py",),
    ),
    Mutant(
        "members erased in a micro-batch that raises stay cached",
        (
            Edit(
                PIPELINE,
                "            return self._encoded(folded, slices)\n",
                "            encoded = self._encoded(folded, slices)\n",
            ),
            Edit(
                PIPELINE,
                "        finally:  # also where encoding",
                "        finally:\n            pass\n        if True:  # also where encoding",
            ),
            Edit(
                PIPELINE,
                "                self._forget(member)\n            self._count_members()\n",
                "                self._forget(member)\n            self._count_members()\n            return encoded\n",
            ),
        ),
        ("tests/unit/stream/pipeline/test_isolation.py",),
    ),
    Mutant(
        "a chunk's older offset taken for the checkpoint",
        (
            Edit(
                "stream/delivery/partition.py",
                "max(pending.next_offset, result.next_offset)",
                "result.next_offset",
            ),
        ),
        ("tests/unit/stream/delivery/test_inference_loop.py",),
    ),
    Mutant(
        "results of a micro-batch that raised kept for the checkpoint",
        (Edit("stream/delivery/inference_loop.py", "        if not batch.has_failed:\n", "        if True:\n"),),
        ("tests/unit/stream/delivery/test_inference_loop.py",),
    ),
    Mutant(
        "a queued slice that forgets it is coalesced",
        (Edit("stream/pipeline/split.py", "waves[number], batch.coalesced)", "waves[number], False)"),),
        ("tests/unit/stream/pipeline/test_coalescing.py",),
    ),
)
