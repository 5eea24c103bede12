"""Pictures as inline SVG. Colours are classes of the style sheet, so that they follow the reader's light or dark.

Coordinates are pixels of the picture at its natural size; it shrinks with the page and never grows beyond it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from intentrec_core.evaluation.html.elements import Html, element
from intentrec_core.evaluation.intent_map import IntentMap
from intentrec_core.evaluation.results import CalibrationBin, Figure

#: As many colours as the style sheet has.
NUM_COLOURS = 10
#: Pixels between the intervals of two lines at one place.
_BESIDE = 3.0


def _svg(width: float, height: float, label: str, *children: Iterable[Html] | Html, class_: str = "chart") -> Html:
    return element(
        "svg",
        *children,
        viewBox=f"0 0 {width:g} {height:g}",
        width=width,
        height=height,
        role="img",
        aria_label=label,
        class_=class_,
    )


def _line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Html:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def _label(x: float, y: float, words: str, *, anchor: str = "start", class_: str = "label") -> Html:
    return element("text", words, x=x, y=y, text_anchor=anchor, class_=class_)


def interval_strip(figure: Figure, top: float, label: str, *, is_ours: bool) -> Html:
    """A value as a bar from 0, with its interval as a line. ``top``: what the full width stands for."""
    width, height = 180.0, 18.0

    def x(value: float) -> float:
        return width * min(1.0, max(0.0, value / top)) if top > 0 else 0.0

    parts = [
        element("rect", x=0, y=4, width=x(figure.value or 0.0), height=10, class_="bar ours" if is_ours else "bar")
    ]
    if figure.low is not None and figure.high is not None:
        low, high = x(figure.low), min(x(figure.high), width - 1)
        parts += [
            _line(low, 9, high, 9, "whisker"),
            _line(low, 5, low, 13, "whisker"),
            _line(high, 5, high, 13, "whisker"),
        ]
    return _svg(width, height, label, parts, class_="strip")


def share_strip(share: float, label: str, *, width: float = 120.0) -> Html:
    """A share from 0 to 1 as a bar."""
    bar = element("rect", x=0, y=3, width=width * min(1.0, max(0.0, share)), height=8, class_="bar ours")
    rest = element("rect", x=0, y=3, width=width, height=8, class_="ground")
    return _svg(width, 14, label, rest, bar, class_="strip")


@dataclass(frozen=True, slots=True)
class Series:
    """A line of a chart: a name, and its values at the chart's places; None where there is none."""

    name: str
    values: Sequence[Figure]


def line_chart(
    series: Sequence[Series], places: Sequence[str], label: str, *, x_title: str, marked: int | None = None
) -> Html:
    """Lines over places at equal distances, with intervals where there are some. ``marked``: a place that is pointed out.

    Lines with intervals lie a little beside each other, so that the intervals of one place do not cover each other.
    """
    width, height, left, right, top, bottom = 360.0, 230.0, 52.0, 12.0, 14.0, 40.0
    known = [v for one in series for f in one.values for v in (f.value, f.low, f.high) if v is not None]
    low, high, ticks = _ticks(min(known, default=0.0), max(known, default=1.0))
    beside = _BESIDE if any(f.low is not None for one in series for f in one.values) else 0.0
    room = beside * (len(series) - 1) / 2

    def x(place: int) -> float:
        share = place / (len(places) - 1) if len(places) > 1 else 0.5
        return left + room + (width - left - right - 2 * room) * share

    def y(value: float) -> float:
        return top + (height - top - bottom) * (1 - (value - low) / (high - low))

    parts = []
    for tick in ticks:
        parts += [
            _line(left, y(tick), width - right, y(tick), "grid"),
            _label(left - 6, y(tick) + 4, f"{tick:.4g}", anchor="end"),
        ]
    step = max(1, math.ceil(len(places) / 8))
    parts += [_label(x(i), height - 20, places[i], anchor="middle") for i in range(0, len(places), step)]
    parts.append(_label((left + width - right) / 2, height - 4, x_title, anchor="middle"))
    if marked is not None:
        parts.append(_line(x(marked), top, x(marked), height - bottom, "mark"))
    for number, one in enumerate(series):
        colour = f"k{number % NUM_COLOURS}"
        points = [
            (x(i) + beside * number - room, y(f.value), f) for i, f in enumerate(one.values) if f.value is not None
        ]
        if len(points) > 1:
            path = " ".join(f"{px:.1f},{py:.1f}" for px, py, _ in points)
            parts.append(element("polyline", points=path, class_=f"curve {colour}"))
        for px, py, figure in points:
            if figure.low is not None and figure.high is not None:
                parts.append(_line(px, y(figure.low), px, y(figure.high), f"whisker {colour}"))
            parts.append(element("circle", cx=px, cy=py, r=3, class_=f"dot {colour}"))
    return _svg(width, height, label, parts)


def calibration_chart(bins: Sequence[CalibrationBin], label: str) -> Html:
    """How often a head was right, by how sure it was: on the diagonal, its probabilities mean what they say."""
    size, left, top, bottom = 230.0, 44.0, 8.0, 40.0
    inner = size - left - top

    def x(share: float) -> float:
        return left + inner * share

    def y(share: float) -> float:
        return top + inner * (1 - share)

    parts = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts += [_line(x(tick), y(0), x(tick), y(1), "grid"), _line(x(0), y(tick), x(1), y(tick), "grid")]
    for tick in (0.0, 0.5, 1.0):
        parts += [
            _label(x(tick), y(0) + 15, f"{tick:.0%}", anchor="end" if tick == 1.0 else "middle"),
            _label(left - 5, y(tick) + 4, f"{tick:.0%}", anchor="end"),
        ]
    parts.append(_label(x(0.5), y(0) + 30, "it said", anchor="middle"))
    parts.append(_line(x(0), y(0), x(1), y(1), "mark"))
    most = max((one.plays for one in bins), default=1)
    for one in bins:
        radius = 2.0 + 6.0 * math.sqrt(one.plays / most)
        title = element("title", f"{one.plays:,} plays: it said {one.confidence:.1%}, right {one.accuracy:.1%}")
        parts.append(element("circle", title, cx=x(one.confidence), cy=y(one.accuracy), r=radius, class_="dot k0 soft"))
    return _svg(size, size - top + bottom - 32, label, parts)


def cluster_map(found: IntentMap, label: str) -> Html:
    """Plays on the plane of the intents, coloured by cluster; the number of each cluster stands at its center."""
    width, height, edge = 560.0, 420.0, 18.0
    xs = [p[0] for p in found.points] + [c.center[0] for c in found.clusters]
    ys = [p[1] for p in found.points] + [c.center[1] for c in found.clusters]
    scale = min(
        (width - 2 * edge) / ((max(xs) - min(xs)) or 1.0),
        (height - 2 * edge) / ((max(ys) - min(ys)) or 1.0),
    )
    middle = ((max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2)

    def at(point: tuple[float, float]) -> tuple[float, float]:
        return width / 2 + (point[0] - middle[0]) * scale, height / 2 - (point[1] - middle[1]) * scale

    parts = []
    for px, py, cluster in found.points:
        x, y = at((px, py))
        parts.append(element("circle", cx=x, cy=y, r=2.2, class_=f"dot k{cluster % NUM_COLOURS} soft"))
    for number, one in enumerate(found.clusters):
        x, y = at(one.center)
        title = element("title", f"{one.name}: {one.share:.1%} of the plays")
        parts.append(element("circle", title, cx=x, cy=y, r=11, class_=f"badge k{number % NUM_COLOURS}"))
        parts.append(_label(x, y + 4.5, str(number + 1), anchor="middle", class_="badge-number"))
    return _svg(width, height, label, parts, class_="chart wide")


def badge(number: int) -> Html:
    """The mark of a cluster, as on the map."""
    colour = f"badge k{(number - 1) % NUM_COLOURS}"
    parts = [
        element("circle", cx=11, cy=11, r=11, class_=colour),
        _label(11, 15.5, str(number), anchor="middle", class_="badge-number"),
    ]
    return _svg(22, 22, f"cluster {number}", parts, class_="mark-of-cluster")


def _ticks(low: float, high: float) -> tuple[float, float, list[float]]:
    """Round numbers that span the values: the lowest, the highest, and all of them."""
    if high <= low:
        low, high = low - (abs(low) or 1.0) * 0.1, high + (abs(high) or 1.0) * 0.1
    rough = (high - low) / 4
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(m * unit for m in (1, 2, 2.5, 5, 10) if m * unit >= rough * 0.999)
    first, last = math.floor(low / step), math.ceil(high / step)
    return first * step, last * step, [k * step for k in range(first, last + 1)]
