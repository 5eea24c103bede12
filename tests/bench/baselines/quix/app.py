"""Baseline (c): a Quix Streams app, RocksDB state, one output. Runs in the environment of ``lock.txt``, not in ours.

Without a model it is a pass-through: a count a member, a body of a real list's size. With ``BENCH_BUNDLE`` it recomputes the
window of every play with that bundle's model. Settings from the environment, those of a worker that it needs.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from quixstreams import Application, State

BODIES, BUNDLE = Path(os.environ["BENCH_BODIES"]), os.environ.get("BENCH_BUNDLE")


def counting() -> Any:
    """No model."""
    body = (BODIES / "recommendation.json").read_bytes()

    def answer(play: dict[str, Any], state: State) -> bytes:
        count = state.get("count", 0) + 1
        state.set("count", count)
        return b'{"event_id":"%b"%b,"count":%d}' % (play["event_id"].encode(), body, count)

    return answer


def recommending(bundle: Path) -> Any:
    """The model of ``bundle``."""
    from tests.bench.baselines.per_event import PerEventModel

    model = PerEventModel(bundle)

    def answer(play: dict[str, Any], state: State) -> bytes:
        value, context = model.answer(play, state.get("context"))
        state.set("context", context)
        return value

    return answer


def main() -> None:
    """See the module."""
    name = os.environ["INTENTREC_APP_ID"]
    app = Application(
        broker_address=os.environ["INTENTREC_BROKER"],
        consumer_group=name,
        auto_offset_reset="earliest",
        state_dir=BODIES / name,
        loglevel="WARNING",
    )
    plays = app.topic(os.environ["INTENTREC_PLAYS_TOPIC"], value_deserializer="json")
    lists = app.topic(os.environ["INTENTREC_RECOMMENDATIONS_TOPIC"], value_serializer="bytes")
    frame = app.dataframe(plays).filter(lambda play: "user_id" in play)
    frame.apply(recommending(Path(BUNDLE)) if BUNDLE else counting(), stateful=True).to_topic(lists)
    app.run()


if __name__ == "__main__":
    main()
