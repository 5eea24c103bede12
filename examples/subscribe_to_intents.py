"""What a UI service does with the intents topic: it keeps the newest update of each member and drops repeats.

    python examples/subscribe_to_intents.py --broker 127.0.0.1:9092

Needs confluent-kafka. Delivery is at least once: after a worker is killed, its last plays are answered again under the same ids,
perhaps by a newer bundle. The message seen first stands. So a subscriber keeps the highest source offset of each member, and
drops lower and repeated ones. With delivery=exactly_once workers publish each update once; a subscriber that starts again at its
last commit still reads some of them twice.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

Message = dict[str, Any]


class NewestOffsets:
    """The highest source offset handled per member.

    A member's plays are in one partition of the plays topic, so their offsets are in order. Store it together with the state it
    protects, and delete both together.
    """

    def __init__(self) -> None:
        self._offsets: dict[tuple[str, int, str], int] = {}

    def is_new(self, message: Message) -> bool:
        """Whether this message is newer than every earlier one of its member; if so, it is remembered."""
        source = message["source"]
        place = source["topic"], source["partition"], message["user_id"]
        if source["offset"] <= self._offsets.get(place, -1):
            return False
        self._offsets[place] = source["offset"]
        return True


def new_updates(consumer: Consumer, *, until_end: bool) -> Iterator[Message]:
    """Updates as they come, each once; with ``until_end``, up to the end of every partition that this consumer was given."""
    newest, ended = NewestOffsets(), set[int]()
    while not until_end or not ended or len(ended) < len(consumer.assignment()):
        record = consumer.poll(0.5)
        if record is None:
            continue
        if (error := record.error()) is not None:
            if error.code() == KafkaError._PARTITION_EOF:
                ended.add(record.partition())
                continue
            raise KafkaException(error)
        message = json.loads(record.value())
        if newest.is_new(message):
            yield message


def rewind(consumer: Consumer, partitions: list[TopicPartition]) -> None:
    """Starts at the beginning of each partition, whatever the group has committed."""
    for partition in partitions:
        partition.offset = OFFSET_BEGINNING
    consumer.assign(partitions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--broker", default="127.0.0.1:9092")
    parser.add_argument("--topic", default="intents")
    parser.add_argument("--group", default="intents-ui")
    parser.add_argument("--from-beginning", action="store_true", help="read what the topic holds, then end")
    options = parser.parse_args()

    consumer = Consumer(
        {
            "bootstrap.servers": options.broker,
            "group.id": options.group,
            "auto.offset.reset": "latest",
            "enable.auto.commit": not options.from_beginning,
            "enable.partition.eof": options.from_beginning,
            # Of a worker with delivery=exactly_once, a transaction that was aborted is never shown.
            "isolation.level": "read_committed",
        }
    )
    if options.from_beginning:
        consumer.subscribe([options.topic], on_assign=rewind)
    else:
        consumer.subscribe([options.topic])
    try:
        for message in new_updates(consumer, until_end=options.from_beginning):
            primary = message["primary"]
            what = (
                f"{primary['head']} = {primary['label']} ({primary['probability']:.0%})" if primary else "nothing known"
            )
            print(f"{message['user_id']}: {what}{'  <- changed' if message['shifted'] else ''}", flush=True)
    except KeyboardInterrupt:
        pass
    finally:
        consumer.close()


if __name__ == "__main__":
    main()
