"""``intentrec explain``: says why a member's list is as it is."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from stream.cli import options
from stream.cli.progress import bars, notes, results
from stream.cli.state import Escaped, User, given_user
from stream.cli.tables import print_table, printable

if TYPE_CHECKING:
    from stream.repair.explain import ExplainedIntent, ExplainedItem, Explanation

_NUM_LABELS = 4


def register(app: typer.Typer) -> None:
    """Adds the command to the command tree."""
    app.command(
        "explain",
        rich_help_panel="Repair",
        epilog="[bold]Examples[/bold]\n\n  intentrec explain u7\n\n  intentrec explain u7 --json --broker kafka:9092",
    )(explain)


def explain(
    user: User,
    escaped: Escaped = False,
    num_plays: Annotated[int, typer.Option("--plays", min=1, help="So many of the plays that matter most.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as one JSON object.")] = False,
    broker: options.Broker = None,
    bundles: options.Bundles = None,
    cache_dir: options.CacheDir = None,
) -> None:
    """Say why a member's list is as it is: the plays that matter, the intents, each item's
    score in parts, and what was hidden by which filter.

    It makes the list anew as a worker does, from the history in the changelog and the
    bundle that is announced; workers may keep running. Parts of a score: taste (what the
    member played), static (the item's own), each intent, counts of plays, own items, successors (what
    usually follows the last plays).
    Give it the settings that the worker has.
    """
    import msgspec

    from stream.repair.explain import explain as explain_member

    settings, user = (
        options.settings(broker=broker, bundle_url=bundles, cache_dir=cache_dir),
        given_user(user, escaped=escaped),
    )
    with bars() as report:
        report(f"reading {settings.changelog_topic} on {settings.broker}", 0, 0)
        found = asyncio.run(explain_member(settings, user))
    if as_json:
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
        return
    _print(found, num_plays)


def _print(found: Explanation, num_plays: int) -> None:
    out = results()
    of = f"{found.user}, partition {found.partition}, up to offset {found.last_offset}, by bundle {found.bundle}"
    out.print(printable(of), style="bold", markup=False, soft_wrap=True)
    if found.fallback == "popular":
        out.print("The bundle knows none of the items played: the list is what is popular.", soft_wrap=True)
    matter = sorted(found.plays, key=lambda play: -play.attention)[:num_plays]
    out.print(f"\nThe plays that matter most, of {len(found.plays)}")
    rows = [(f"{play.attention:.1%}", play.event_time, play.item_id or "–", play.title) for play in matter]
    print_table(("attention", "when", "item", "title"), rows, right=("attention",))
    if found.intents:
        out.print("\nThe intents")
        intents = sorted(found.intents, key=lambda intent: -intent.weight)
        print_table(("weight", "intent", "likeliest"), [_intent(of_head) for of_head in intents], right=("weight",))
    out.print("\nThe list, with each score in parts")
    _print_items(found.items)
    hidden = ", ".join(f"{name} hides {num:,} items" for name, num in found.num_hidden.items())
    out.print(f"\n{printable(hidden) or 'No filter hides an item'}", markup=False, soft_wrap=True)
    if found.hidden:
        out.print("On the list, were they not hidden", soft_wrap=True)
        _print_items(found.hidden)
    for note in found.notes:
        notes().print(f"note: {note}", markup=False, soft_wrap=True)


def _intent(of_head: ExplainedIntent) -> tuple[str, str, str]:
    likeliest = list(of_head.labels.items())[:_NUM_LABELS]
    return f"{of_head.weight:.1%}", of_head.name, ", ".join(f"{name} {share:.0%}" for name, share in likeliest)


def _print_items(items: list[ExplainedItem]) -> None:
    if not items:
        results().print("nothing")
        return
    names = list(items[0].parts)
    is_hidden = any(item.hidden_by for item in items)
    rows = [
        (
            f"{item.score:.3f}",
            *(f"{item.parts[name]:+.3f}" for name in names),
            item.item_id,
            *([", ".join(item.hidden_by)] if is_hidden else []),
            item.title,
        )
        for item in items
    ]
    columns = ("score", *names, "item", *(["hidden by"] if is_hidden else []), "title")
    print_table(columns, rows, right=("score", *names))
