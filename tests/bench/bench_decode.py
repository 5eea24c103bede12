"""Cost of decoding a play, next to the same JSON parsed without any check.

python -m tests.bench.bench_decode
"""

from __future__ import annotations

import json
import time
from types import SimpleNamespace

import msgspec
import numpy as np

from intentrec_core.times import EARLIEST_MS
from stream.wire.codec import DecodedPlay, decode_play, encode
from stream.wire.messages import Play

NOW_MS, NUM_PLAYS, ROUNDS = 1_772_396_100_000, 20_000, 9
CONTEXT = {"device": "tv", "region": "DE", "max_maturity": 12}
PLAYS = {
    "full": Play("e-1234567890", "user-12345", "item-12345", NOW_MS, "watch", 1234.5, "s-1", CONTEXT),
    "short": Play("e-1234567890", "user-12345", "item-12345", NOW_MS),
    "iso_time": Play("e-1234567890", "user-12345", "item-12345", "2026-03-01T20:15:00.000Z"),
    "refused": Play("e-1234567890", "user-12345", "", NOW_MS),
}


def timed(call):
    """Median and 99th percentile of microseconds of CPU a call, over rounds of many."""
    rounds = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(NUM_PLAYS):
            call()
        rounds.append((time.process_time() - began) / NUM_PLAYS * 1e6)
    return round(float(np.median(rounds)), 2), round(max(rounds), 2)


def main():
    plain = msgspec.json.Decoder().decode
    rows = []
    for name, play in PLAYS.items():
        record = SimpleNamespace(key=b"user-12345", value=encode(play), timestamp=NOW_MS)
        assert isinstance(decode_play(record, EARLIEST_MS, 0), DecodedPlay) == (name != "refused")
        median, worst = timed(lambda r=record: decode_play(r, EARLIEST_MS, 0))
        parsed, _ = timed(lambda r=record: plain(r.value))
        rows.append({"play": name, "bytes": len(record.value), "us": median, "us_max": worst, "unchecked_us": parsed})
        print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    print(json.dumps({"bench": "decode", "rows": rows}))


if __name__ == "__main__":
    main()
