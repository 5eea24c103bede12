"""Faults in delivery: those of plain Faust, and those that this design could have."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant

CHANGELOG, PARTITION, WORKER = (
    "stream/delivery/changelog.py",
    "stream/delivery/partition.py",
    "stream/delivery/worker.py",
)
TRANSPORT, PUBLISHER, CLIENTS = "stream/delivery/transport.py", "stream/kafka/publisher.py", "stream/kafka/clients.py"
GATHERING = "stream/delivery/gathering.py"
PLAY_BUFFER = "stream/delivery/play_buffer.py"
START_OFFSET = "stream/delivery/start_offset.py"

TEST_PARTITION, TEST_FAUST_APP = (
    "tests/unit/stream/delivery/test_partition.py",
    "tests/unit/stream/delivery/test_faust_app.py",
)
TEST_DRAIN_LOOP = "tests/unit/stream/delivery/test_drain_loop.py"
TEST_FETCH_SHARES = "tests/unit/stream/delivery/test_fetch_shares.py"
TEST_PLAY_BUFFER = "tests/unit/stream/delivery/test_play_buffer.py"
TEST_GATHERING = "tests/unit/stream/delivery/test_gathering.py"
TEST_REOPENS = "tests/unit/stream/delivery/test_partition_reopens.py"
SWEEP = "tests/property/test_every_await_can_fail.py"
MACHINE = "tests/property/test_delivery_machine.py"
KAFKA, EXACTLY_ONCE, EMBEDDED = (
    f"{MACHINE}::test_{mode}" for mode in ("on_kafka", "exactly_once", "without_transactions")
)
TWINS = (SWEEP, KAFKA, EXACTLY_ONCE)

DELIVERY = (
    Mutant(
        "a partition with few plays waits for the turns of those with a backlog",
        (Edit(PLAY_BUFFER, "sorted(has_many, key=has_many.__getitem__)", "list(has_many)"),),
        (TEST_PLAY_BUFFER,),
    ),
    Mutant(
        "a micro-batch holds a few plays of each of many partitions",
        (Edit(PLAY_BUFFER, "turn = max(MIN_TURN, share) if share else 1", "turn = max(1, share)"),),
        (TEST_PLAY_BUFFER,),
    ),
    Mutant(
        "a partition waits long where there are more than a micro-batch holds plays",
        (Edit(PLAY_BUFFER, "turn = max(MIN_TURN, share) if share else 1", "turn = max(MIN_TURN, share)"),),
        (TEST_PLAY_BUFFER,),
    ),
    Mutant(
        "a partition that had its turn does not go to the end of the order",
        (Edit(PLAY_BUFFER, "            if partition in self._waiting:\n", "            if partition < 0:\n"),),
        (TEST_PLAY_BUFFER,),
    ),
    Mutant(
        "offsets before state",
        (
            Edit(
                CHANGELOG,
                """        await asyncio.gather(*await _send(self._producer, topic, partition, checkpoint, self._marker))
        if not await self._commit_offset(partition, checkpoint.next_offset):
            raise BrokerError(f"the offset of partition {partition} was not committed: it is no longer assigned here")
""",
                """        if not await self._commit_offset(partition, checkpoint.next_offset):
            raise BrokerError(f"the offset of partition {partition} was not committed: it is no longer assigned here")
        await asyncio.gather(*await _send(self._producer, topic, partition, checkpoint, self._marker))
""",
            ),
        ),
        (SWEEP, EMBEDDED),
    ),
    Mutant(
        "offsets in a transaction of their own, before the state's",
        (
            Edit(
                CHANGELOG,
                "        await producer.begin_transaction()\n",
                """        await producer.begin_transaction()
        early = TopicPartition(settings.plays_topic, self._partition)
        await producer.send_offsets_to_transaction({early: checkpoint.next_offset}, settings.app_id)
        await producer.commit_transaction()
        await producer.begin_transaction()
""",
            ),
        ),
        TWINS,
    ),
    Mutant(
        "outputs not awaited",
        (
            Edit(
                PARTITION,
                "            await asyncio.gather(*(receipt.future for receipt in checkpoint.receipts))\n",
                "            await asyncio.sleep(0)\n",
            ),
        ),
        TWINS,
    ),
    Mutant(
        "changelog not awaited",
        (Edit(CHANGELOG, "        await asyncio.gather(*acknowledged)\n", ""),),
        TWINS,
    ),
    Mutant(
        "no fence",
        (
            Edit(
                CHANGELOG,
                "            transactional_id=transactional_id(settings, self._partition),\n",
                '            transactional_id=f"{transactional_id(settings, self._partition)}-{id(self)}",\n',
            ),
        ),
        TWINS,
    ),
    Mutant(
        "changelog read before the fence",
        (
            Edit(
                PARTITION,
                "        await self._writer.open()\n",
                "        restored = await needs.restore(partition)\n        await self._writer.open()\n",
            ),
            Edit(
                PARTITION,
                "        restored = await needs.restore(partition)\n        facts",
                "        facts",
            ),
        ),
        # The restored state is checked against the offset, and a newer marker is detected: in the twins it recovers by itself.
        (TEST_PARTITION,),
    ),
    Mutant(
        "committed offset read before the fence",
        (
            Edit(
                PARTITION,
                "        await self._writer.open()\n",
                "        facts = await needs.source.source_facts(partition)\n        await self._writer.open()\n",
            ),
            Edit(
                PARTITION,
                "        restored = await needs.restore(partition)\n"
                "        facts = await needs.source.source_facts(partition)\n",
                "        restored = await needs.restore(partition)\n",
            ),
        ),
        TWINS,
    ),
    Mutant(
        "uncommitted records of the changelog read",
        (Edit(CLIENTS, '"isolation_level": "read_committed"', '"isolation_level": "read_uncommitted"'),),
        TWINS,
    ),
    Mutant(
        "replayed plays skipped because they are in memory",
        (
            Edit(
                WORKER,
                "        task.next_fetch = fetched.end\n",
                """        task.next_fetch = fetched.end
        in_memory = self.__dict__.setdefault("in_memory", {})
        known = in_memory.get(task.partition, -1)
        fetched = type(fetched)(fetched.start, [r for r in fetched.records if r.offset > known], fetched.end)
        in_memory[task.partition] = max(known, fetched.end - 1)
""",
            ),
        ),
        TWINS,
    ),
    Mutant(
        "a reopened partition keeps the state that was in memory",
        (
            Edit(
                PARTITION,
                "        await self._owner.open_state(partition, restored.histories)\n",
                """        kept = self._owner.__dict__.setdefault("kept", {})
        if partition in kept:
            restored.histories.update(kept[partition])
        kept[partition] = restored.histories
        await self._owner.open_state(partition, restored.histories)
""",
            ),
        ),
        TWINS,
    ),
    Mutant(
        "perform_seek() with nothing committed",
        (
            Edit(
                PARTITION,
                "        await needs.source.seek_source(partition, start)\n",
                "        if facts.committed is not None:\n"
                "            await needs.source.seek_source(partition, start)\n",
            ),
        ),
        (f"{SWEEP}::test_each_step_meets_each_fate",),
    ),
    Mutant(
        "one partition's plays taken before those of the others",
        (
            Edit(
                TRANSPORT,
                "            share = max(1, max_records // (len(waiting) - place))\n",
                "            share = max(1, max_records)\n",
            ),
        ),
        (TEST_FETCH_SHARES,),
    ),
    Mutant(
        "the same partitions share every fetch",
        (Edit(TRANSPORT, "            self._served[tp] = None\n", ""),),
        (TEST_FETCH_SHARES,),
    ),
    Mutant(
        "a partition whose fetch failed loses plays that were taken of another one",
        (Edit(TRANSPORT, "        waiting.sort(key=lambda tp: type(fetched[tp]) is FetchResult)\n", ""),),
        (TEST_FETCH_SHARES,),
    ),
    Mutant(
        "a fetch dropped while the flow stopped is not fetched again",
        (Edit(TRANSPORT, "                    await self._seek_back(tasks)\n", ""),),
        (TEST_DRAIN_LOOP,),
    ),
    Mutant(
        "a fetch from before a rebalance accepted",
        (Edit(TRANSPORT, "if not self.flow_active or generation != self.app.consumer_generation_id:", "if False:"),),
        (TEST_DRAIN_LOOP,),
    ),
    Mutant(
        "a dropped fetch of one task moves the position of the next",
        (
            Edit(
                TRANSPORT,
                "            if self._sink.fetchable().get(partition) is task:\n",
                "            if True:\n",
            ),
        ),
        (TEST_DRAIN_LOOP,),
    ),
    Mutant(
        "a fetch from any offset accepted",
        (Edit(WORKER, "        if fetched.start != task.next_fetch:\n", "        if False:\n"),),
        (TEST_REOPENS, *TWINS),
    ),
    Mutant(
        "a fetch for an ended task accepted",
        (
            Edit(
                WORKER,
                "        if self._tasks.get(task.partition) is not task or not task.ready or self._draining:\n",
                "        task = self._tasks.get(task.partition, task)\n        if not task.ready or self._draining:\n",
            ),
            Edit(WORKER, "        if fetched.start != task.next_fetch:\n", "        if False:\n"),
        ),
        TWINS,
    ),
    Mutant(
        "the offset of fetched plays committed, not that of processed ones",
        (
            Edit(
                PARTITION,
                "        await self._writer.commit(Checkpoint(checkpoint.next_offset, checkpoint.changes, checkpoint.outputs))\n",
                "        await self._writer.commit(Checkpoint(self.next_fetch, checkpoint.changes, checkpoint.outputs))\n",
            ),
        ),
        TWINS,
    ),
    Mutant(
        "a checkpoint that is not frozen",
        (
            Edit(
                PARTITION,
                "        checkpoint, self._uncommitted = self._uncommitted, _PendingCheckpoint()\n",
                "        checkpoint = self._uncommitted\n",
            ),
            Edit(
                PARTITION,
                "        self.committed_offset = checkpoint.next_offset\n",
                "        self.committed_offset = checkpoint.next_offset\n        self._uncommitted = _PendingCheckpoint()\n",
            ),
        ),
        TWINS,
    ),
    Mutant(
        "a checkpoint after one that failed",
        (Edit(PARTITION, "            if self._failure is not None:\n                raise self._failure\n", ""),),
        (TEST_PARTITION, *TWINS),
    ),
    Mutant(
        "outputs leave after an inference that failed",
        (Edit(PARTITION, "        self.output_stream.ended = True  # now", "        # now"),),
        ("tests/unit/stream/delivery/test_worker.py",),
    ),
    Mutant(
        "outputs of a task that has ended still leave",
        (Edit(PARTITION, "        self.output_stream.ended = True\n", ""),),
        (TEST_PARTITION, *TWINS),
    ),
    Mutant(
        "changelog written to another partition than the source's",
        (
            Edit(
                CHANGELOG,
                "_send(producer, settings.changelog_topic, self._partition, checkpoint, self._marker)",
                "_send(producer, settings.changelog_topic, 1 - self._partition, checkpoint, self._marker)",
            ),
        ),
        TWINS,
    ),
    Mutant(
        "plays of an open or aborted transaction folded in",
        (Edit(CLIENTS, '"isolation_level": "read_committed"', '"isolation_level": "read_uncommitted"'),),
        (TEST_FAUST_APP, "tests/faults/test_log_gaps.py"),
    ),
    Mutant(
        "Faust's web server listens",
        (Edit("stream/delivery/faust_app.py", "web_enabled=False", "web_enabled=True"),),
        (TEST_FAUST_APP,),
    ),
    Mutant(
        "no marker in the checkpoint",
        (Edit(CHANGELOG, "        (MARKER_KEY, marker(checkpoint.next_offset).encode()),\n", ""),),
        TWINS,
    ),
    Mutant(
        "marker ignored",
        (
            Edit(
                START_OFFSET,
                "    if facts.committed is not None:\n        raise",
                "    if facts.committed is not None and not transactional:\n        raise",
            ),
        ),
        ("tests/unit/stream/delivery/test_start_offset.py",),
    ),
    Mutant(
        "an offset beyond the state accepted",
        (Edit(START_OFFSET, "    if committed > marker.next_offset:\n", "    if False:\n"),),
        ("tests/unit/stream/delivery/test_start_offset.py",),
    ),
    Mutant(
        "the marker's number of partitions ignored",
        (Edit(START_OFFSET, "    if marker.num_partitions != facts.num_partitions:\n", "    if False:\n"),),
        ("tests/unit/stream/delivery/test_start_offset.py",),
    ),
    Mutant(
        "outputs sent after one that failed",
        (Edit(PUBLISHER, "        self.stream.ended = True\n", "        pass\n"),),
        ("tests/unit/stream/kafka/test_publisher.py",),
    ),
    Mutant(
        "outputs of a play without a key sent to the partition of the one before",
        (
            Edit(
                PUBLISHER, "            elif key is not last:", "            elif key is not last and last is not None:"
            ),
        ),
        ("tests/unit/stream/kafka/test_publisher.py",),
    ),
    Mutant(
        "outputs that did not fit into a batch failed with it",
        (Edit(PUBLISHER, "                taken.pop()  # nothing", "                pass  # nothing"),),
        ("tests/unit/stream/kafka/test_publisher.py",),
    ),
    Mutant(
        "records of a batch that is filled twice numbered from 0 again",
        (Edit(PUBLISHER, "    builder._relative_offset = offset\n", ""),),
        ("tests/unit/stream/kafka/test_publisher.py",),
    ),
    Mutant(
        "a batch that is full not closed",
        (
            Edit(
                PUBLISHER,
                "            builder.close()\n            break\n        offset += 1\n",
                "            break\n        offset += 1\n",
            ),
        ),
        ("tests/unit/stream/kafka/test_publisher.py",),
    ),
    Mutant(
        "the latency of the record before kept",
        (
            Edit(
                PUBLISHER,
                "            latency = latency_text(latency_s)\n",
                "            latency = latency or latency_text(latency_s)\n",
            ),
        ),
        ("tests/unit/stream/kafka/test_publisher.py",),
    ),
    Mutant(
        "the commits of a newer owner taken for damage",
        (Edit(PARTITION, "(await needs.restore(partition)).marker != restored.marker", "False"),),
        (TEST_PARTITION,),
    ),
    Mutant(
        "a coalesced answer does not name its first play",
        (
            Edit(
                "stream/pipeline/coalescing.py",
                "rows[place]) for place in earlier]\n",
                "rows[place]) for place in earlier[1:]]\n",
            ),
        ),
        (SWEEP, "tests/unit/stream/pipeline/test_coalescing.py"),
    ),
    Mutant(
        "many plays are not gathered",
        (Edit(TRANSPORT, "            consumer._fetcher._fetch_min_bytes = self._min_bytes()\n", ""),),
        (TEST_FETCH_SHARES,),
    ),
    Mutant(
        "few plays are gathered",
        (Edit(TRANSPORT, "self._gathered_bytes if self._gathering.active else 1", "self._gathered_bytes"),),
        (TEST_FETCH_SHARES,),
    ),
    Mutant(
        "gathering ends where it begins",
        (Edit(GATHERING, "_END_RATIO = 0.75\n", "_END_RATIO = 1.0\n"),),
        (TEST_GATHERING,),
    ),
    Mutant(
        "gathering never ends",
        (Edit(GATHERING, "                self.active = False\n", "                pass\n"),),
        (TEST_GATHERING,),
    ),
)
