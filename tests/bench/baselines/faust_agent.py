"""Baseline (b): the Faust agent that a tutorial teaches: one event at a time, a JSON table, one output by ``topic.send``.

Without a model it counts each member's plays in the table and sends a body of a real list's size: the least that such an agent
can do. With ``BENCH_BUNDLE`` it recomputes the window of every play with that bundle's model. Settings as a worker's.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import faust

from stream.settings import Settings
from tests.bench.baselines.per_event import PerEventModel


def make_app(settings: Settings, bodies: Path, bundle: str | None) -> faust.App:
    """The app; ``bundle`` is the path of a bundle, or None for no model at all."""
    app = faust.App(
        settings.app_id,
        broker=f"kafka://{settings.broker}",
        store="memory://",
        topic_partitions=settings.num_partitions,
        topic_disable_leader=True,
        web_enabled=False,
        stream_wait_empty=False,
        datadir=str(bodies / settings.app_id),
    )
    plays = app.topic(settings.plays_topic, key_type=str, key_serializer="raw", value_serializer="json")
    lists = app.topic(settings.recommendations_topic, key_type=str, key_serializer="raw", value_serializer="raw")

    if bundle is None:
        body = (bodies / "recommendation.json").read_bytes()
        counts = app.Table("counts", default=int, value_type=int)

        @app.agent(plays)
        async def count(stream: AsyncIterator[dict[str, Any]]) -> None:
            async for play in stream:
                if "user_id" not in play:
                    continue
                counts[play["user_id"]] += 1
                value = b'{"event_id":"%b"%b,"count":%d}' % (play["event_id"].encode(), body, counts[play["user_id"]])
                await lists.send(key=play["user_id"], value=value)

    else:
        model, contexts = PerEventModel(Path(bundle)), app.Table("contexts", value_type=str)

        @app.agent(plays)
        async def recommend(stream: AsyncIterator[dict[str, Any]]) -> None:
            async for play in stream:
                if "user_id" not in play:
                    continue
                user = play["user_id"]
                value, contexts[user] = model.answer(play, contexts.get(user))
                await lists.send(key=user, value=value)

    return app


if __name__ == "__main__":
    app = make_app(Settings.load(), Path(os.environ["BENCH_BODIES"]), os.environ.get("BENCH_BUNDLE"))
    faust.Worker(app, loglevel="WARNING", override_logging=True).execute_from_commandline()
