"""Draws a snapshot as the whole screen: panels from top to bottom, with as many members as fit the height."""

from __future__ import annotations

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table

from stream.demo.console.panels import flow_panel, member_panel, quality_panel, weights_panel
from stream.demo.console.snapshot import DemoSnapshot

_FLOW_ROWS = 5
#: Frame above and below, and the row with the names of the heads.
_MEMBER_ROWS = 3
MOST_LABELS = 5
FEWEST_LABELS = 3
#: Terminals narrower than this stack the two middle panels.
_NARROW = 90


class Screen:
    """A rich renderable that fits the terminal it is printed on."""

    def __init__(self, view: DemoSnapshot) -> None:
        self._view = view

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Group(*self._panels(options.max_width, options.height or console.height))

    def _panels(self, width: int, height: int) -> list[RenderableType]:
        view = self._view
        panels: list[RenderableType] = [flow_panel(view, width)]
        left = height - _FLOW_ROWS
        quality_rows = 4 + len(view.quality.intents)
        if width >= _NARROW:
            right = max(36, width * 2 // 5)
            middle = Table.grid(expand=True, padding=0)
            middle.add_column(width=width - right)
            middle.add_column(width=right)
            middle.add_row(quality_panel(view.quality, width - right), weights_panel(view.weights, right))
            panels.append(middle)
            left -= max(quality_rows, 4 + bool(view.weights.trainer) + len(view.weights.served[-4:]))
        else:
            panels.append(quality_panel(view.quality, width))
            left -= quality_rows
        for num_labels in range(MOST_LABELS, FEWEST_LABELS - 1, -1):
            if left // (num_labels + _MEMBER_ROWS) >= len(view.members):
                break
        shown = view.members[: max(0, left // (num_labels + _MEMBER_ROWS))]
        panels.extend(member_panel(member, width, num_labels) for member in shown)
        return panels
