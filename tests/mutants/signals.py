"""Faults in what operators see: exit codes, readiness, lag, and what is left in a store."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant

WORKER, PROCESS_END = "stream/delivery/worker.py", "stream/ops/process_end.py"
STORE = "intentrec_core/bundle/store.py"
TEST_ENDS = "tests/unit/stream/ops/test_process_end.py"
TEST_REOPENS = "tests/unit/stream/delivery/test_partition_reopens.py"
TEST_STORE = "tests/unit/stream/cli/test_bundles_in_a_store.py"
TEST_AWAY = (
    "tests/integration/test_process_ends.py"
    "::test_without_a_broker_services_are_not_ready_and_end_with_0_if_all_their_work_is_durable"
)

SIGNALS = (
    Mutant(
        "a signal ends a service that is still importing",
        (Edit("stream/cli/__init__.py", "        end_at_once_until_running()", "        pass"),),
        (f"{TEST_ENDS}::test_a_signal_before_it_runs_ends_a_service_with_0",),
    ),
    Mutant(
        "a second signal replaces the exit code",
        (Edit(PROCESS_END, "signal.signal(number, signal.SIG_IGN)", "signal.signal(number, signal.SIG_DFL)"),),
        (f"{TEST_ENDS}::test_a_second_signal_does_not_replace_the_exit_code_that_was_reached",),
    ),
    Mutant(
        "a drain whose last checkpoint failed ends with 0",
        (Edit(WORKER, "return frozenset(self._to_replay.keys() & self._assigned)", "return frozenset()"),),
        (TEST_REOPENS,),
    ),
    Mutant(
        "a trainer whose last plays are not on disk ends with 0",
        (Edit("stream/trainer/app.py", "            if not self._is_flushed:\n", "            if False:\n"),),
        ("tests/faults/test_disk_full.py::test_an_event_log_that_cannot_be_written_keeps_a_trainer_waiting",),
    ),
    Mutant(
        "a checkpoint of some replayed plays counts for all of them",
        (Edit(WORKER, "if task.committed_offset >= self._to_replay.get(task.partition, 0):", "if True:"),),
        (f"{TEST_REOPENS}::test_a_drain_names_partitions_whose_processed_plays_are_not_replayed_yet",),
    ),
    Mutant(
        "a checkpoint whose acknowledgement was lost is replayed although it is durable",
        (Edit(WORKER, "lost.\n        self._note_durable(task)\n", "lost.\n"),),
        (f"{TEST_REOPENS}::test_a_drain_names_no_partition_whose_last_checkpoint_is_durable_but_was_not_acknowledged",),
    ),
    Mutant(
        "the lag counts control records",
        (
            Edit(
                WORKER,
                "return max(0, end - task.next_fetch) + self._in_flight.num_plays(task)",
                "return max(0, end - task.committed_offset)",
            ),
        ),
        (TEST_REOPENS, "tests/integration/test_lag.py"),
    ),
    Mutant(
        "a worker without a broker is ready",
        (Edit("stream/worker_process.py", "        if self._worker.is_cut_off:\n", "        if False:\n"),),
        (TEST_AWAY,),
    ),
    Mutant(
        "a trainer without a broker is ready",
        (Edit("stream/trainer/log_follower.py", "            self.is_cut_off = is_cut_off\n", ""),),
        ("tests/unit/stream/trainer/test_log_follower.py", TEST_AWAY),
    ),
    Mutant(
        "a worker without partitions does not look whether the broker answers",
        (Edit("stream/delivery/lag_monitor.py", "if worker.joined else {}", "if fetched else {}"),),
        ("tests/unit/stream/delivery/test_lag_monitor.py",),
    ),
    Mutant(
        "the consumer's thread ends with a traceback if the broker is away",
        (
            Edit(
                "stream/delivery/transport.py",
                "            await close_consumer(self._consumer)\n",
                "            await self._consumer.stop()\n",
            ),
        ),
        (TEST_AWAY,),
    ),
    Mutant(
        "a consumer whose start is cancelled stays open",
        (
            Edit(
                "stream/kafka/clients.py",
                "        await close_consumer(consumer)\n        raise\n",
                "        raise\n",
            ),
        ),
        ("tests/unit/stream/kafka/test_clients.py",),
    ),
    Mutant(
        "a producer whose start is cancelled stays open",
        (
            Edit(
                "stream/kafka/clients.py",
                "            await close_producer(producer)\n            raise\n",
                "            raise\n",
            ),
        ),
        ("tests/unit/stream/kafka/test_clients.py",),
    ),
    Mutant(
        "the first connection of a client whose start is cancelled stays open",
        (Edit("stream/kafka/cancelled_starts.py", "            connection.close()\n", "            pass\n"),),
        ("tests/unit/stream/kafka/test_cancelled_starts.py",),
    ),
    Mutant(
        "a producer that does not stop stays connected",
        (Edit("stream/kafka/clients.py", "        await _close_connections(producer.client)\n", ""),),
        ("tests/unit/stream/kafka/test_clients.py",),
    ),
    Mutant(
        "a batch to be sent again fails with a KeyError",
        (Edit("stream/kafka/requeued_batches.py", "    accumulator._pending_batches.add(batch)\n", ""),),
        ("tests/unit/stream/kafka/test_requeued_batches.py",),
    ),
    Mutant(
        "closing a client waits for data that its broker does not take",
        (
            Edit(
                "stream/kafka/clients.py",
                "        async with asyncio.timeout(CLOSE_DEADLINE_S):\n            await client",
                "        if True:\n            await client",
            ),
        ),
        ("tests/unit/stream/kafka/test_clients.py",),
    ),
    Mutant(
        "a client that knows no node fails an assertion",
        (Edit("stream/kafka/known_nodes.py", "if client.get_random_node() is None:", "if False:"),),
        ("tests/unit/stream/kafka/test_known_nodes.py",),
    ),
    Mutant(
        "the failure of a batch that nothing awaits is reported",
        (Edit("stream/delivery/changelog.py", "        sent.add_done_callback(mark_retrieved)", "        #"),),
        ("tests/unit/stream/delivery/test_changelog_writer.py",),
    ),
    Mutant(
        "a bundle that is being published is removed as a leftover",
        (
            Edit(
                STORE,
                "for version, written in self.unfinished().items() if written < before]",
                "for version, written in self.unfinished().items()]",
            ),
        ),
        (TEST_STORE,),
    ),
    Mutant(
        "a whole bundle is taken for a half one",
        (Edit(STORE, "if all(_name(path) != MANIFEST for path in files) and", "if"),),
        (TEST_STORE,),
    ),
    Mutant(
        "the demo removes its logs before it says that plays are missing",
        (
            Edit(
                "stream/cli/demo.py",
                "        _report(result, print_step, as_json=as_json)\n",
                "    _report(result, print_step, as_json=as_json)\n",
            ),
        ),
        ("tests/unit/stream/demo/test_missing_plays.py",),
    ),
)
