"""Send plays into Kafka with aiokafka. Its default partitioner is Java's murmur2, so that the key alone decides the partition.

    echo '{"event_id": "e1", "user_id": "7", "item_id": "50", "ts": 1772396100000, "context": {"rating": "5"}}' |
        python examples/send_with_aiokafka.py --broker 127.0.0.1:9092

Needs aiokafka. The record's key is user_id in UTF-8. The same holds for kafka-python and the Java clients.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys

from aiokafka import AIOKafkaProducer


async def send(broker: str, topic: str) -> int:
    """Sends the plays of standard input; returns how many the broker has."""
    # acks=all: a play counts as sent once every copy has it. With enable_idempotence=True (on Apache Kafka) no retry sends twice.
    async with AIOKafkaProducer(bootstrap_servers=broker, acks="all") as producer:
        sent = [
            await producer.send(topic, line.strip().encode(), key=json.loads(line)["user_id"].encode())
            for line in sys.stdin
            if line.strip()
        ]
        await asyncio.gather(*sent)
    return len(sent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--broker", default="127.0.0.1:9092")
    parser.add_argument("--topic", default="plays")
    options = parser.parse_args()
    print(f"{asyncio.run(send(options.broker, options.topic))} plays sent")


if __name__ == "__main__":
    main()
