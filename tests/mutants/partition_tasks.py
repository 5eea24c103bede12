"""Faults in the opening and ending of partition tasks, and in their counts."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant

WORKER, PARTITION, START_OFFSET = (
    "stream/delivery/worker.py",
    "stream/delivery/partition.py",
    "stream/delivery/start_offset.py",
)
CODEC, MOVED = "intentrec_core/history/changelog_codec.py", "stream/pipeline/stale_members.py"
PUBLISHER = "stream/kafka/publisher.py"

TEST_WORKER, TEST_REOPENS = (
    "tests/unit/stream/delivery/test_worker.py",
    "tests/unit/stream/delivery/test_partition_reopens.py",
)
TEST_START_OFFSET = "tests/unit/stream/delivery/test_start_offset.py"
TEST_GROUND_STATE, TEST_STALE_MEMBERS = (
    "tests/property/test_ground_state.py",
    "tests/unit/stream/pipeline/test_stale_members.py",
)

PARTITION_TASKS = (
    Mutant(
        "plays counted before they are committed",
        (
            Edit(PARTITION, "        pending.counts.add_all(result.counts)\n", "        result.counts.count()\n"),
            Edit(PARTITION, "        checkpoint.counts.count()\n", ""),
        ),
        (TEST_REOPENS,),
    ),
    Mutant(
        "a revoke waits for an inference that hangs",
        (
            Edit(
                WORKER,
                "            finish.cancel()\n            self._background.spawn(",
                "            await finish\n            self._background.spawn(",
            ),
        ),
        (TEST_WORKER,),
    ),
    Mutant(
        "a state not closed where its writer does not close",
        (
            Edit(
                PARTITION,
                "        try:\n            if self._writer is not None:\n                await",
                "        if True:\n            if self._writer is not None:\n                await",
            ),
            Edit(
                PARTITION,
                "        finally:  # also where a revoke past",
                "        if True:  # also where a revoke past",
            ),
        ),
        ("tests/unit/stream/delivery/test_partition.py",),
    ),
    Mutant(
        "a client library's cancellation taken for one of this code",
        (
            Edit(
                WORKER,
                'BrokerError("the opening was cancelled from within") if opening.cancelled()',
                "None if opening.cancelled()",
            ),
        ),
        (TEST_REOPENS,),
    ),
    Mutant(
        "an error that must end the process waits for an inference that hangs",
        (
            Edit(
                WORKER,
                "which may hang.\n            self._background.end_process(error)\n",
                "which may hang.\n            pass\n",
            ),
            Edit(
                WORKER,
                "        if isinstance(error, _FINAL):\n            return None\n",
                "        if isinstance(error, _FINAL):\n            return self._background.end_process(error)\n",
            ),
        ),
        (TEST_WORKER,),
    ),
    Mutant(
        "a position after the last record taken for a gap",
        (
            Edit(
                WORKER,
                "        task.next_fetch = fetched.end\n",
                "        task.next_fetch = fetched.records[-1].offset + 1 if fetched.records else fetched.start\n",
            ),
        ),
        (TEST_WORKER,),
    ),
    Mutant(
        "partitions of a topic counted again for each batch",
        (
            Edit(
                PUBLISHER,
                "        num_partitions, last, place = self._num_partitions, None, 0\n",
                "        num_partitions, last, place = self._num_partitions, None, 0\n        for kind in self._topics:\n"
                "            self._num_partitions[kind] = len(self._producer.partitions)\n",
            ),
        ),
        ("tests/unit/stream/kafka/test_publisher.py",),
    ),
    Mutant(
        "a topic created anew and filled taken for the old one",
        (Edit(START_OFFSET, "facts.first_ms > checkpoint_ms + CLOCK_SLACK_MS", "False"),),
        (TEST_START_OFFSET,),
    ),
    Mutant(
        "another schema read",
        (Edit(CODEC, "        if not value or not _is_readable(value):\n", "        if not value:\n"),),
        (TEST_GROUND_STATE,),
    ),
    Mutant(
        "the previous engine forgets only members that became stale since the swap",
        (Edit(MOVED, "= old, self._since_migration, set()", "= old, set(), set()"),),
        (TEST_STALE_MEMBERS, "tests/unit/stream/bundles/test_hot_swap.py"),
    ),
    Mutant(
        "plays that waited for inference passed to the next task",
        (
            Edit(
                WORKER,
                "        if task is not None:\n            self._buffer.drop(partition)\n",
                "",
            ),
        ),
        (f"{TEST_REOPENS}::test_plays_that_waited_for_inference_are_not_passed_to_the_next_task",),
    ),
    Mutant(
        "a revoked partition does not wait for inference",
        (
            Edit(
                PARTITION,
                "                await self._idle.wait()\n                await self._commit()\n",
                "                await self._commit()\n",
            ),
        ),
        (f"{TEST_WORKER}::test_plays_in_inference_at_a_revoke_are_in_the_last_checkpoint",),
    ),
    Mutant(
        "no last transaction on revoke",
        (
            Edit(
                PARTITION,
                "                await self._idle.wait()\n                await self._commit()\n",
                "                await self._idle.wait()\n",
            ),
        ),
        (f"{TEST_WORKER}::test_plays_in_inference_at_a_revoke_are_in_the_last_checkpoint",),
    ),
    Mutant(
        "a failed inference passed over by the last checkpoint",
        (
            Edit(
                WORKER,
                "past the failed plays.\n        task.fail(error)\n",
                "past the failed plays.\n        pass\n",
            ),
        ),
        (f"{TEST_REOPENS}::test_the_last_checkpoint_does_not_pass_plays_whose_inference_failed",),
    ),
    Mutant(
        "an opening that failed ended out of turn",
        (
            Edit(
                WORKER,
                "                await task.abandon()\n            self._count_partitions()\n",
                "                if given_up:\n                    await task.abandon()\n            self._count_partitions()\n",
            ),
        ),
        (f"{TEST_REOPENS}::test_a_failed_opening_closes_nothing_of_the_next_task",),
    ),
)
