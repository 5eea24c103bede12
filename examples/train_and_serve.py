"""Train a model and serve it in one process, with the library alone: no Kafka and no command line.

    python examples/train_and_serve.py

It learns from MovieLens-100K where this machine has fetched it (`intentrec data movielens-100k`), else from a simulated world.
The last plays are held back, and arrive live.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pyarrow as pa

import intentrec_core as intentrec
from intentrec_core.simulation.simulate import World

NUM_LIVE = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plays", type=int, default=20_000, help="how many plays to learn from")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--save", type=Path, default=Path("model"), help="the folder to save the model to")
    options = parser.parse_args()

    domain, plays, catalogue = newest_plays(options.plays + NUM_LIVE)
    known, to_come = plays.slice(0, plays.num_rows - NUM_LIVE), plays.slice(plays.num_rows - NUM_LIVE)
    print(f"training on {known.num_rows:,} plays of the domain {domain}")
    model = intentrec.fit(known, catalogue, domain=domain, epochs=options.epochs)

    live = intentrec.LiveEncoder(model, cache_bytes=64 << 20)
    live.add_history(known)  # histories begin empty: members get back what they played before
    print(f"{len(live):,} members have a history\n")

    for row in to_come.to_pylist():
        now = live.play_many([live_play(row, live.attribute_keys)])[0]
        title = item.title if (item := catalogue.get(now.item_id)) else now.item_id
        print(f"{now.user_id} played {title}")
        if now.primary:
            print(f"    likely intent  {now.primary.head} = {now.primary.label} ({now.primary.probability:.0%})")
        print(
            f"    show next      {', '.join(item.title for item in now.recommend(k=3)) or 'nothing that the filters admit'}"
        )

    folder = model.save(options.save)
    again = intentrec.load(folder)
    print(
        f"\nsaved to {folder}: {len(again.vocabulary) - 1:,} items; for workers: intentrec bundle build {folder} --plays …"
    )


def newest_plays(num_plays: int) -> tuple[str, pa.Table, intentrec.Catalogue]:
    """A domain's name, its newest plays in event-time order, and its items."""
    if (Path.home() / ".cache" / "intentrec" / "movielens-100k").is_dir():
        data = intentrec.load_movielens()
        return "movielens", data.plays.slice(max(0, data.plays.num_rows - num_plays)), data.catalogue
    world = World("video", users=300, items=500, seed=0)
    plays = pa.concat_tables(batch.table() for batch in world.batches(num_plays))
    return "video", plays, intentrec.Catalogue(world.catalogue())


def live_play(row: dict[str, Any], keys: tuple[str, ...]) -> intentrec.LivePlay:
    """A row of a table of plays as a live play, with those attributes that the domain reads."""
    attributes = {**dict(row["context"] or ()), "action": row["action"]}
    return intentrec.LivePlay(
        user_id=row["user_id"],
        item_id=row["item_id"],
        ts_ms=row["ts_ms"],
        event_id=row["event_id"],
        duration_s=row["duration_s"],
        attributes={key: value for key, value in attributes.items() if key in keys},
    )


if __name__ == "__main__":
    main()
