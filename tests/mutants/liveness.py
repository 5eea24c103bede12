"""Faults in the detection of stalls: a hang that is not detected, and a hang detected where there is none."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant

LAG_MONITOR, PROGRESS, WORKER = "stream/delivery/lag_monitor.py", "stream/ops/liveness.py", "stream/delivery/worker.py"
PARTITION, TOPIC_READER, FOLLOWER = (
    "stream/delivery/partition.py",
    "stream/kafka/topic_reader.py",
    "stream/trainer/log_follower.py",
)

TEST_LAG_MONITOR, TEST_PROGRESS = (
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
        "the lag monitor reports no partition",
        (Edit(LAG_MONITOR, "saw_lag(standing | unopened)", "saw_lag(set())"),),
        (TEST_LAG_MONITOR,),
    ),
    Mutant(
        "a stalled partition hidden by the progress of others",
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
        "a partition that is not opened is not reported",
        (Edit(LAG_MONITOR, "saw_lag(standing | unopened)", "saw_lag(standing)"),),
        (TEST_LAG_MONITOR,),
    ),
    Mutant(
        "a broker that is down taken for a stuck worker",
        (Edit(LAG_MONITOR, "if (found is None or unopened) and not await", "if False and not await"),),
        (TEST_LAG_MONITOR,),
    ),
    Mutant(
        "a stuck worker taken for a broker that is down",
        (Edit(LAG_MONITOR, " and not await broker_answers(fetched | unopened)", ""),),
        (TEST_LAG_MONITOR,),
    ),
    Mutant(
        "a partition that waits its turn taken for a stalled one",
        (Edit(LAG_MONITOR, "        if not worker.had_capacity():\n", "        if False:\n"),),
        (TEST_LAG_MONITOR,),
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
        "a connection timeout taken for a recovery past its deadline",
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
        "a fetch that ends after a control record counts as in flight for good",
        (
            Edit(
                "stream/delivery/flow_control.py",
                "held.fetches.append((fetched.records[-1].offset + 1, num_bytes))",
                "held.fetches.append((fetched.end, num_bytes))",
            ),
        ),
        ("tests/unit/stream/delivery/test_flow_control.py",),
    ),
    Mutant(
        "plays in flight are not bounded",
        (Edit("stream/delivery/flow_control.py", " and self._in_flight.has_capacity", ""),),
        (TEST_WORKER, "tests/faults/test_bounded.py"),
    ),
)
