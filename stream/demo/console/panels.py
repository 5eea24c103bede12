"""The panels of the live view: flow, quality, weights, and one for each member."""

from __future__ import annotations

from rich.box import ROUNDED
from rich.console import RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from stream.demo.console.bars import bar, duration, milliseconds, ratio, shortened, sparkline
from stream.demo.console.snapshot import DemoPhase, DemoSnapshot, Head, LiveQuality, Member, Weights

FRAME = "grey37"
LABEL = "grey62"
OURS = "bright_cyan"
THEIRS = "grey50"
HIT = "bold bright_green"
WEIGHTS = "bright_magenta"
_MARKOV = "vs Markov"
_HEAD_STYLES = ("bright_cyan", "bright_yellow", "bright_magenta", "bright_green")


def framed(content: RenderableType, title: str) -> Panel:
    """A panel with a grey frame and a title."""
    return Panel(
        content, title=Text(title, style="bold bright_white"), title_align="left", box=ROUNDED, border_style=FRAME
    )


def flow_panel(view: DemoSnapshot, width: int) -> Panel:
    """Throughput, latency, counts and the progress of the replay."""
    cells = Table.grid(padding=(0, 2), expand=True)
    rate = _cell("plays/s", f"{view.plays_per_s:,.0f}", OURS)
    rate.append(f"  {sparkline(view.rates, 12)}", style=THEIRS)
    shown = [
        ("latency p50", milliseconds(view.p50_s), "bright_white"),
        ("p99", milliseconds(view.p99_s), "bright_white"),
        ("recommendations", f"{view.recommendations:,}", "bright_white"),
        ("sent / folded in", f"{view.plays_sent:,} / {view.plays_applied:,}", "bright_white"),
    ]
    for _ in range(1 + len(shown)):
        cells.add_column(no_wrap=True)
    cells.add_row(rate, *(_cell(name, value, style) for name, value, style in shown))
    body = Table.grid(expand=True)
    body.add_row(cells)
    body.add_row(_progress(view, width - 4))
    return framed(body, view.title)


def _cell(name: str, value: str, style: str) -> Text:
    return Text.assemble((f"{name}\n", LABEL), (value, f"bold {style}"))


def _progress(view: DemoSnapshot, width: int) -> Text:
    share = view.plays_sent / view.plays_planned if view.plays_planned else 0.0
    if view.planned_s:
        share = max(share, min(1.0, view.elapsed_s / view.planned_s))
    state = {
        DemoPhase.REPLAYING: view.event_time or "waiting for the worker",
        DemoPhase.DRAINING: "waiting for the last recommendations",
        DemoPhase.DONE: "done",
    }[view.phase]
    time_text = duration(view.elapsed_s) + (f" of {duration(view.planned_s)}" if view.planned_s else "")
    problems = "".join(
        f"  {count:,} {name}"
        for name, count in (("dead letters", view.dead_lettered), ("duplicates", view.duplicates))
        if count
    )
    left = max(10, width - len(state) - len(time_text) - len(problems) - 4)
    return Text.assemble(
        (bar(share, left), OURS),
        "  ",
        (state, "bright_white"),
        "  ",
        (time_text, LABEL),
        (problems, "bright_red"),
    )


def quality_panel(quality: LiveQuality, width: int) -> Panel:
    """Hit rate and intent accuracy of IntentRec beside the baselines: one row each.

    Hit rates are small: their bars are scaled to the best of the three. An accuracy's bar shows the accuracy itself.
    """
    hit_rates = (quality.hr_at_10, quality.hr_at_10_popular, quality.hr_at_10_markov)
    best_hit_rate = max(rate or 1e-9 for rate in hit_rates)
    rows = [("HR@10", *hit_rates[:2]), (_MARKOV, quality.hr_at_10, quality.hr_at_10_markov)]
    rows += [(name, *both) for name, both in quality.intents.items()]
    bar_width = max(4, (width - 4 - 10 - 2 * 7) // 2)
    table = Table.grid(padding=(0, 1))
    table.add_column(style=LABEL, width=9, no_wrap=True)
    table.add_row(
        "", Text("IntentRec", style=OURS), "", Text(shortened("popular, last 7 days", bar_width), style=THEIRS), ""
    )
    for name, ours, theirs in rows:
        top = best_hit_rate if name in ("HR@10", _MARKOV) else 1.0
        table.add_row(
            shortened(name, 9),
            Text(bar((ours or 0.0) / top, bar_width), style=OURS),
            Text(f"{ratio(ours):<4}", style=f"bold {OURS}"),
            Text(bar((theirs or 0.0) / top, bar_width), style=THEIRS),
            Text(f"{ratio(theirs):<4}", style="bright_white"),
        )
    judged = f" · {quality.num_judged:,}" if quality.num_judged else ""
    return framed(table, f"Each play tests the last prediction{judged}")


def weights_panel(weights: Weights, width: int) -> Panel:
    """The serving bundle, and the quality of the bundles before it."""
    body = Table.grid(expand=True)
    age = f"{duration(weights.age_s)} old" if weights.version else ""
    body.add_row(Text.assemble((weights.version or "none yet", f"bold {WEIGHTS}"), (f"  {age}", LABEL)))
    swaps = f"{weights.num_published} published · {weights.num_swapped} swapped in"
    body.add_row(Text(swaps, style="bright_white"))
    if weights.trainer:
        body.add_row(Text(shortened(weights.trainer, width - 4), style=LABEL))
    for reason, count in weights.refused.items():
        body.add_row(Text(f"{count} refused: {reason}", style="bright_red"))
    for served in weights.served[-4:]:
        baselines = [rate for rate in (served.hr_at_10_popular, served.hr_at_10_markov) if rate is not None]
        against = f" vs {', '.join(map(ratio, baselines))}" if baselines else ""
        line = Text.assemble(
            (f"{served.version[:9]} ", WEIGHTS if served.version == weights.version else LABEL),
            (f"HR@10 {ratio(served.hr_at_10)}{against}", "bright_white"),
            (f" · {served.num_judged:,}", LABEL),
        )
        line.truncate(width - 4, overflow="ellipsis")
        body.add_row(line)
    return framed(body, "Weights")


def member_panel(member: Member, width: int, num_rows: int) -> Panel:
    """One member: the newest play, the intents as bars, and the recommendations."""
    head_width = 24
    heads = member.heads
    num_heads = max(1, min(len(heads), (width - 4 - 26) // (head_width + 2)))
    if num_heads < len(heads):
        heads = tuple(sorted(heads, key=lambda head: (-head.primary, -head.weight))[:num_heads])
    columns = Table.grid(padding=(0, 2), expand=True)
    for _ in heads:
        columns.add_column(width=head_width, no_wrap=True)
    columns.add_column(ratio=1, no_wrap=True)
    titles_width = max(10, width - 4 - len(heads) * (head_width + 2))
    cells: list[Text] = [
        _head_cell(head, head_width, num_rows, _HEAD_STYLES[member.heads.index(head) % len(_HEAD_STYLES)])
        for head in heads
    ]
    listed = Text.assemble(("recommended next", LABEL))
    for place, title in enumerate(member.titles[:num_rows], start=1):
        listed.append(f"\n{place} ", style=LABEL)
        listed.append(shortened(title, titles_width - 2), style="bright_white")
    columns.add_row(*cells, listed)
    panel = framed(columns, "")
    panel.title = _member_title(member, width - 6)
    if member.quiet_s > 3:
        panel.style = "dim"
    return panel


def _member_title(member: Member, width: int) -> Text:
    title = Text.assemble((f"member {member.user_id}", "bold bright_white"), (f" · play {member.num_plays} ", LABEL))
    tail = Text()
    if member.recommended:
        tail.append(f" ✓ was recommended as no. {member.recommended}", style=HIT)
    if member.intent:
        tail.append(f" · {'now' if member.shifted else 'wants'} {member.intent}", style="bright_yellow")
    left = max(8, width - title.cell_len - tail.cell_len)
    title.append(shortened(member.last_title, left), style="bright_white")
    title.append_text(tail)
    return title


def _head_cell(head: Head, width: int, num_rows: int, style: str) -> Text:
    name_style = f"bold {style}" if head.primary else LABEL
    cell = Text.assemble(
        (f"{'▸ ' if head.primary else ''}{head.name}", name_style), (f"  weight {ratio(head.weight)}", LABEL)
    )
    # Many labels share the probability: a full bar is 50 %, or the likeliest label if that is more.
    full = max([0.5, *(share for _, share in head.labels)])
    for label, share in head.labels[:num_rows]:
        cell.append("\n")
        cell.append(f"{shortened(label, 13):<13} ", style="bright_white")
        cell.append(bar(share / full, width - 18), style=style)
        cell.append(f"{share * 100:3.0f}%", style=LABEL)
    return cell
