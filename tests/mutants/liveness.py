"""Faults in what says whether a process gets anywhere: a hang that nobody sees, and a hang seen where there is none."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant

LAG_WATCH, PROGRESS, WORKER = "stream/delivery/lag_monitor.py", "stream/ops/liveness.py", "stream/delivery/worker.py"
PARTITION, TOPIC_READER, FOLLOWER = (
    "stream/delivery/partition.py",
    "stream/kafka/topic_reader.py",
    "stream/trainer/log_follower.py",
)

TEST_LAG_WATCH, TEST_PROGRESS = (
    "tests/unit/stream/delivery/test_lag_monitor.py",
    "tests/unit/stream/ops/test_liveness.py",
)
TEST_WORKER, TEST_FOLLOWER = (
    "tests/unit/stream/delivery/test_worker.py",
    "tests/unit/stream/trainer/test_log_follower.py",
)
RECOVERY_ENDS = f"{TEST_WORKER}::test_a_recovery_past_its_deadline_ends_the_process_although_inference_hangs"

LIVENESS = (
    Mutant(
        "the watch on the log's end is blind",
        (Edit(LAG_WATCH, "saw_lag(standing | unopened)", "saw_lag(set())"),),
        (TEST_LAG_WATCH,),
    ),
    Mutant(
        "a partition that stands hidden by what the others get done",
        (Edit(PROGRESS, "        self._since_s.pop(partition, None)\n", "        self._since_s.clear()\n"),),
        (
            TEST_PROGRESS,
            "tests/faults/test_stuck.py"
            "::test_one_partition_that_stops_progressing_fails_the_liveness_whatever_the_others_get_done",
        ),
    ),
    Mutant(
        "the same in the trainer",
        (Edit(FOLLOWER, "self._lagging.end(partition.partition)", "self._lagging.only(())"),),
        (TEST_FOLLOWER,),
    ),
    Mutant(
        "a partition that nobody opens is not seen",
        (Edit(LAG_WATCH, "saw_lag(standing | unopened)", "saw_lag(standing)"),),
        (TEST_LAG_WATCH,),
    ),
    Mutant(
        "a broker that is away taken for a worker that hangs",
        (Edit(LAG_WATCH, "if (found is None or unopened) and not await", "if False and not await"),),
        (TEST_LAG_WATCH,),
    ),
    Mutant(
        "a worker that hangs taken for a broker that is away",
        (Edit(LAG_WATCH, " and not await broker_answers(fetched | unopened)", ""),),
        (TEST_LAG_WATCH,),
    ),
    Mutant(
        "a partition that waits for its turn taken for one that stands",
        (Edit(LAG_WATCH, "        if not worker.had_capacity():\n", "        if False:\n"),),
        (TEST_LAG_WATCH,),
    ),
    Mutant(
        "the same in a trainer that catches up",
        (Edit(FOLLOWER, "                if self._poll_was_full:\n", "                if False:\n"),),
        (TEST_FOLLOWER,),
    ),
    Mutant(
        "a recovery waits for the record at the last offset",
        (
            Edit(
                TOPIC_READER,
                "        if reached >= end and (exact or not records):\n",
                "        if end == 0 or (records and records[-1].offset == end - 1):  # a control record\n",
            ),
        ),
        ("tests/property/test_every_await_can_fail.py::test_each_step_meets_each_fate",),
    ),
    Mutant(
        "a recovery without a deadline",
        (Edit(PARTITION, "asyncio.timeout(needs.recovery_deadline_s)", "asyncio.timeout(None)"),),
        (RECOVERY_ENDS,),
    ),
    Mutant(
        "a recovery past its deadline does not end the process",
        (
            Edit(
                WORKER,
                "which may hang.\n            self._background.end_process(error)\n",
                "which may hang.\n            pass\n",
            ),
        ),
        (RECOVERY_ENDS,),
    ),
    Mutant(
        "a connection's time-out taken for a recovery past its deadline",
        (
            Edit(
                PARTITION,
                "            if not deadline.expired():  # a timeout within the client\n                raise\n",
                "",
            ),
        ),
        ("tests/unit/stream/delivery/test_partition.py",),
    ),
    Mutant(
        "what ends behind a transaction's end takes up room for good",
        (
            Edit(
                "stream/delivery/in_flight.py",
                "held.fetches.append((fetched.records[-1].offset + 1, num_bytes))",
                "held.fetches.append((fetched.end, num_bytes))",
            ),
        ),
        ("tests/unit/stream/delivery/test_in_flight.py",),
    ),
    Mutant(
        "what is fetched and not committed is not bounded",
        (Edit("stream/delivery/flow_control.py", " and self._in_flight.has_capacity", ""),),
        (TEST_WORKER, "tests/faults/test_bounded.py"),
    ),
)
