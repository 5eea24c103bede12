"""``intentrec doctor``: says what is wrong with an installation, and the remedy."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from stream.cli import options
from stream.cli.progress import bars, results
from stream.cli.tables import print_table

if TYPE_CHECKING:
    from stream.doctor.check import Check
    from stream.settings import Settings


def register(app: typer.Typer) -> None:
    """Adds the command to the command tree."""
    app.command(
        "doctor",
        rich_help_panel="Repair",
        epilog="[bold]Examples[/bold]\n\n  intentrec doctor --domain my.toml\n\n  intentrec doctor --json --broker kafka:9092",
    )(doctor)


def doctor(
    broker: options.Broker = None,
    domain: options.Domain = None,
    bundles: options.Bundles = None,
    cache_dir: options.CacheDir = None,
    device: options.Device = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Look at broker, topics, bundles, clock, disk, GPU, Java, domain and catalogue, and say
    what is wrong and how to mend it.

    Exit code 1 if anything is an error. Give it the options and settings that the worker
    has. To read the broker's clock, it makes a topic of its own and deletes it again.
    """
    import msgspec

    from stream.doctor.check import CheckStatus, counted

    settings = options.settings(broker=broker, domain=domain, bundle_url=bundles, cache_dir=cache_dir, device=device)
    found = _checked(settings)
    num = {status: sum(check.status is status for check in found) for status in CheckStatus}
    if as_json:
        report = {"errors": num[CheckStatus.ERROR], "warnings": num[CheckStatus.WARNING], "checks": found}
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    else:
        print_table(("", "what", "found", "remedy"), [(c.status.value, c.area, c.found, c.remedy) for c in found])
        results().print(f"{counted(num[CheckStatus.ERROR], 'error')}, {counted(num[CheckStatus.WARNING], 'warning')}")
    if num[CheckStatus.ERROR]:
        raise typer.Exit(1)


def _checked(settings: Settings) -> list[Check]:
    from stream.doctor.broker import check_broker
    from stream.doctor.check import Checks
    from stream.doctor.machine import check_machine
    from stream.doctor.model import check_model

    checks = Checks()
    with bars() as report:
        report(f"looking at the broker {settings.broker}", 0, 0)
        topics = asyncio.run(check_broker(settings, checks))
        report("looking at domain, catalogue and bundles", 0, 0)
        check_model(settings, checks, topics)
        report("looking at this machine", 0, 0)
        check_machine(settings, checks)
    return checks.found
