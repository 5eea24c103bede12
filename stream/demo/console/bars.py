"""Numbers as text: bars in eighths of a character, a sparkline, and fixed-width number formats."""

from __future__ import annotations

from collections.abc import Sequence

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_LEVELS = "▁▂▃▄▅▆▇█"


def bar(share: float, width: int) -> str:
    """A bar that fills ``share`` (0 to 1) of ``width`` characters, padded to the width."""
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(width)


def sparkline(values: Sequence[float], width: int) -> str:
    """The last ``width`` values as levels from 0 to their highest, padded on the left."""
    shown = list(values)[-width:]
    highest = max(shown, default=0.0)
    if highest <= 0:
        return " " * width
    return "".join(_LEVELS[min(7, int(value / highest * 7.999))] for value in shown).rjust(width)


def milliseconds(seconds: float | None) -> str:
    """A latency as text: ``12 ms``, ``1.2 s``; a dash for None."""
    if seconds is None:
        return "–"
    if seconds < 0.00995:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s"


def ratio(value: float | None) -> str:
    """A hit rate or accuracy with three decimals: ``.112``; a dash for None."""
    if value is None:
        return "–"
    return f"{value:.3f}".removeprefix("0") if value < 1 else "1.00"


def duration(seconds: float) -> str:
    """``8 s``, ``1:05``, ``2:03:10``."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02}"
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def shortened(text: str, width: int) -> str:
    """The text, truncated to ``width`` characters with an ellipsis if it is longer."""
    return text if len(text) <= width else text[: max(0, width - 1)].rstrip() + "…"
