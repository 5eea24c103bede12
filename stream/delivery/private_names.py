"""Checks that the private names of faust-streaming and aiokafka that this project overrides or uses exist.

An override of a method that is no longer called fails silently, and in the batch transport would lose plays. So every such name
is listed here, and a worker refuses to start when one is missing.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Mapping

import aiokafka
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.fetcher import Fetcher as AIOKafkaFetcher
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import Assignment, SubscriptionState, TopicPartitionState
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.producer.message_accumulator import BatchBuilder, MessageAccumulator
from aiokafka.record.default_records import _DefaultRecordBatchPy
from faust.transport.consumer import Consumer as FaustConsumer
from faust.transport.consumer import Fetcher as FaustFetcher
from faust.transport.drivers import aiokafka as driver
from mode.threads import ServiceThread

from intentrec_core.errors import TransportMismatch

#: Every private or undocumented name that is overridden or used, by its owner.
_PRIVATE_NAMES: Mapping[type, tuple[str, ...]] = {
    driver.Consumer: (
        "_drain_messages",
        "_new_consumer_thread",
        "_getmany",
        "perform_seek",
        "stop_flow",
        "on_partitions_revoked",
        "on_partitions_assigned",
        "verify_event_path",
        "consumer_stopped_errors",
        "flow_active",
    ),
    driver.AIOKafkaConsumerThread: (
        "_create_worker_consumer",
        "_consumer",
        "_ensure_consumer",
        "_fetch_records",
        "on_partitions_assigned",
        "on_thread_stop",
    ),
    FaustFetcher: ("_fetcher",),
    AIOKafkaFetcher: ("fetched_records", "_create_fetch_waiter"),
    PartitionRecords: ("__next__", "_consumer_record"),
    _DefaultRecordBatchPy: ("_maybe_uncompress",),
    GroupCoordinator: ("_do_heartbeat", "ensure_coordinator_known", "reset_generation"),
    SubscriptionState: ("fetch_context", "subscription"),
    Assignment: ("state_value",),
    TopicPartitionState: ("has_valid_position", "position"),
    StickyPartitionAssignor: ("on_generation_assignment",),
    MessageAccumulator: ("fail_all", "reenqueue"),
    AIOKafkaClient: ("get_random_node", "coordinator_lookup"),
}
#: Names that a constructor sets or a method uses: they are searched for in the owner's source.
_USED_IN_SOURCE: Mapping[type, tuple[str, ...]] = {
    FaustFetcher: ("consumer._drain_messages(self)",),
    AIOKafkaFetcher: (
        "MemoryRecords(part_data[-1])",
        "PartitionRecords(",
        "self._records = collections.OrderedDict()",
        "if type(res_or_error) is FetchResult:",
        "self._fetch_max_wait_ms,\n                self._fetch_min_bytes,",  # read at each request
    ),
    PartitionRecords: (
        "self.next_fetch_offset = record.offset + 1",
        "self._consumer_record(tp, record)",
        "self._key_deserializer = key_deserializer",
        "self._value_deserializer = value_deserializer",
    ),
    MessageAccumulator: (
        "self._batches[tp].appendleft(batch)\n        self._pending_batches.remove(batch)",
        "self._pending_batches.add(batch)",
    ),
    BatchBuilder: (
        "self._builder.append(\n            self._relative_offset,\n            timestamp,\n            key=",
        "self._relative_offset += 1",
    ),
    _DefaultRecordBatchPy: ("buffer = self._buffer", '.decode("utf-8")'),
    driver.AIOKafkaConsumerThread: (
        "self._create_worker_consumer(",
        "self.consumer.flow_active",
        "await super().on_thread_stop()",
        "await self._consumer.stop()",
    ),
    ServiceThread: ("self.thread_loop",),
    FaustConsumer: ("self._read_offset", "self.can_resume_flow"),
    GroupCoordinator: ("self._rejoin_needed_fut", "self.generation", "self.member_id"),
    aiokafka.AIOKafkaConsumer: ("self._coordinator", "self._client", "self._subscription", "self._fetcher"),
}


def check_private_names() -> None:
    """Checks every listed name.

    Raises: TransportMismatch, which names the first missing one.
    """
    for owner, names in _PRIVATE_NAMES.items():
        for name in names:
            if not hasattr(owner, name):
                raise _mismatch(owner, name)
    for place, texts in _USED_IN_SOURCE.items():
        try:
            source = _source(place)
        except OSError:  # installed without sources: only the names above can be checked
            continue
        for text in texts:
            if text not in source:
                raise _mismatch(place, text)
    parameters = list(inspect.signature(driver.Consumer._drain_messages).parameters)
    if parameters != ["self", "fetcher"]:
        raise _mismatch(driver.Consumer, f"_drain_messages(self, fetcher), but ({', '.join(parameters)})")


def _source(owner: type) -> str:
    """The lines of a class. ``inspect.getsource`` reads the whole module as Python for it, which takes each start half a second.

    Raises: OSError without the source.
    """
    module = inspect.getsource(sys.modules[owner.__module__])
    lines = re.search(rf"^class {owner.__name__}\b.*?(?=^\S|\Z)", module, re.DOTALL | re.MULTILINE)
    return lines[0] if lines else ""


def _mismatch(owner: type, name: str) -> TransportMismatch:
    where = f"{owner.__module__}.{owner.__qualname__}"
    return TransportMismatch(
        f"the installed faust-streaming or aiokafka has no {name} in {where}; "
        "install faust-streaming>=0.15.3,<0.16 and aiokafka<0.15"
    )
