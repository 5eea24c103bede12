"""`intentrec`, as a module, with a time of day that jumps: SIGUSR1 moves it on to the next of OFFSETS_S.

The monotonic clock goes on as it is, as it does when somebody, or a bad time server, sets a machine's clock.
"""

from __future__ import annotations

import itertools
import signal
import sys
import time

#: Further than the hour by which a broker lets a record be ahead of its own clock.
OFFSETS_S = (0, 3600, -3600, 4000, -4000)

_true_time, _true_time_ns = time.time, time.time_ns
_offsets = itertools.cycle(OFFSETS_S)
_offset_s = next(_offsets)


def _jump(*_: object) -> None:
    global _offset_s
    _offset_s = next(_offsets)
    print(f"the clock jumps to {_offset_s:+d} s", file=sys.stderr, flush=True)


def main() -> int:
    """Patches the clock before anything of the worker is imported, then runs the command line."""
    time.time = lambda: _true_time() + _offset_s
    time.time_ns = lambda: _true_time_ns() + _offset_s * 1_000_000_000
    signal.signal(signal.SIGUSR1, _jump)
    from stream.cli import main as run

    return int(run() or 0)


if __name__ == "__main__":
    sys.exit(main())
