"""Send plays into Kafka with librdkafka, so that each reaches the partition where a worker expects its member.

    echo '{"event_id": "e1", "user_id": "7", "item_id": "50", "ts": 1772396100000, "context": {"rating": "5"}}' |
        python examples/send_plays.py --broker 127.0.0.1:9092

Needs confluent-kafka. Three things matter, with every client of librdkafka (C, C++, Go, .NET, Rust, PHP, kcat). The record's key
is user_id in UTF-8. The partitioner is murmur2_random, which is Java's default; librdkafka's own default is another hash, and a
worker rejects plays placed by it, with the reason wrong_partition. And the producer is idempotent and has one request in flight,
so that no retry puts later plays before earlier ones. The same with kcat, with "7" as the key:

    echo '7|{"event_id": …}' |
        kcat -P -b 127.0.0.1:9092 -t plays -K '|' -X partitioner=murmur2_random -X enable.idempotence=true -X max.in.flight=1
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

from confluent_kafka import Producer


def send(producer: Producer, topic: str, key: bytes, value: bytes, delivered: Callable[[Any, Any], None]) -> None:
    """Queues a record. Where the producer's queue is full, waits for acknowledgements."""
    while True:
        try:
            producer.produce(topic, key=key, value=value, on_delivery=delivered)
        except BufferError:
            producer.poll(0.5)
        else:
            producer.poll(0)
            return


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--broker", default="127.0.0.1:9092")
    parser.add_argument("--topic", default="plays")
    options = parser.parse_args()

    producer = Producer(
        {
            "bootstrap.servers": options.broker,
            "partitioner": "murmur2_random",
            # A retry must not reorder or duplicate a member's plays, nor lose the first ones of a topic that was just created.
            "enable.idempotence": True,
            "max.in.flight": 1,
        }
    )
    outcomes: Counter[str] = Counter()

    def delivered(error: Any, _: Any) -> None:
        outcomes["refused" if error else "sent"] += 1
        if error:
            print(error, file=sys.stderr)

    for line in sys.stdin:
        if line.strip():
            key = json.loads(line)["user_id"].encode()
            send(producer, options.topic, key, line.strip().encode(), delivered)
    outcomes["unknown"] = producer.flush(30)
    print(f"{outcomes['sent']} plays sent, {outcomes['refused']} refused, {outcomes['unknown']} not acknowledged")
    return 0 if outcomes.total() == outcomes["sent"] else 1


if __name__ == "__main__":
    sys.exit(main())
