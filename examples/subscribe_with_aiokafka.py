"""Follow recommendations with aiokafka: the newest list of each member, each once.

    python examples/subscribe_with_aiokafka.py --broker 127.0.0.1:9092

Needs aiokafka. Messages can repeat after a failure, so lower and repeated source offsets of a member are dropped:
subscribe_to_intents.py says why.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from aiokafka import AIOKafkaConsumer


async def new_lists(consumer: AIOKafkaConsumer, *, until_end: bool) -> AsyncIterator[dict[str, Any]]:
    """Lists as they come, each once; with ``until_end``, what the topic holds now."""
    newest: dict[tuple[str, int, str], int] = {}
    while True:
        fetched = await consumer.getmany(timeout_ms=1000)
        for records in fetched.values():
            for record in records:
                message = json.loads(record.value)
                source = message["source"]
                place = source["topic"], source["partition"], message["user_id"]
                if source["offset"] > newest.get(place, -1):
                    newest[place] = source["offset"]
                    yield message
        if until_end and not fetched:
            return


async def follow(broker: str, topic: str, group: str | None, *, until_end: bool) -> None:
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=broker,
        group_id=group,
        auto_offset_reset="earliest" if until_end else "latest",
        # Of a worker with delivery=exactly_once, a transaction that was aborted is never shown.
        isolation_level="read_committed",
    )
    async with consumer:
        async for message in new_lists(consumer, until_end=until_end):
            titles = ", ".join(item["title"] for item in message["items"][:3])
            print(f"{message['user_id']}: {titles or 'nothing that the filters admit'}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--broker", default="127.0.0.1:9092")
    parser.add_argument("--topic", default="recommendations")
    parser.add_argument("--group", help="share the topic with others of this group, and go on where it stopped")
    parser.add_argument("--from-beginning", action="store_true", help="read what the topic holds, then end")
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(follow(options.broker, options.topic, options.group, until_end=options.from_beginning))


if __name__ == "__main__":
    main()
