"""``intentrec worker``, ``intentrec trainer`` and ``intentrec gateway``: the production processes; and tokens for the gateway."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from stream.cli import options

logger = logging.getLogger(__name__)

_PANEL = "Streaming"
_OURS = ("stream", "intentrec_core", "index")


def register(app: typer.Typer) -> None:
    """Adds the commands to the command tree."""
    app.command(
        "worker",
        rich_help_panel=_PANEL,
        epilog="[bold]Examples[/bold]\n\n  intentrec worker --broker 127.0.0.1:9092\n\n"
        "  intentrec worker --metrics-port 9465      a second worker on this machine; they share the partitions\n\n"
        "  INTENTREC_DELIVERY=exactly_once intentrec worker",
    )(worker)
    app.command(
        "trainer",
        rich_help_panel=_PANEL,
        epilog="[bold]Examples[/bold]\n\n  intentrec trainer --interval 3600 --metrics-port 9466",
    )(trainer)
    app.command(
        "gateway",
        rich_help_panel=_PANEL,
        epilog="[bold]Examples[/bold]\n\n  intentrec gateway --domain video\n\n"
        "  curl http://127.0.0.1:9470/v1/users/u7/recommendations?k=3\n\n"
        "  intentrec gateway --port 9471 --metrics-port 9468     a second one; they share the members",
    )(gateway)
    app.command(
        "token",
        rich_help_panel=_PANEL,
        epilog="[bold]Examples[/bold]\n\n  intentrec token u7 --key-file gateway.key --make-key\n\n"
        "  intentrec token --operator --expires 28800 --key-file gateway.key     a working day of the console",
    )(token)


def worker(
    broker: options.Broker = None,
    domain: options.Domain = None,
    bundles: options.Bundles = None,
    device: options.Device = None,
    metrics_port: options.MetricsPort = None,
) -> None:
    """Fold every play into its member's history, and publish updated intents and
    recommendations.

    Needs the topics (`intentrec topics`) and an announced bundle
    (`intentrec train --announce`). On SIGTERM it commits its work and exits with 0.
    """
    _enable_logs()
    logger.info("worker: importing the libraries")  # seconds on a warm disk, many on a cold one

    from stream.app import run_worker

    run_worker(
        options.settings(broker=broker, domain=domain, bundle_url=bundles, device=device, metrics_port=metrics_port)
    )


def trainer(
    broker: options.Broker = None,
    domain: options.Domain = None,
    bundles: options.Bundles = None,
    device: options.Device = None,
    metrics_port: options.MetricsPort = None,
    interval: Annotated[float | None, typer.Option(help="Seconds between training runs.")] = None,
    event_log: Annotated[
        Path | None, typer.Option(help="Folder of the event log, where the trainer stores plays.")
    ] = None,
) -> None:
    """Store the plays, retrain on a schedule, and announce each bundle that passes the
    gate: one that is not worse than the serving bundle."""
    _enable_logs()
    logger.info("trainer: importing the libraries")

    from stream.trainer.app import run_trainer

    run_trainer(
        options.settings(
            broker=broker,
            domain=domain,
            bundle_url=bundles,
            device=device,
            metrics_port=metrics_port,
            retrain_interval_s=interval,
            event_log_dir=event_log,
        )
    )


def gateway(
    broker: options.Broker = None,
    domain: options.Domain = None,
    bundles: options.Bundles = None,
    host: Annotated[
        str | None, typer.Option(help="Address to serve; another one than loopback needs INTENTREC_GATEWAY_KEY_FILE.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port to serve. 0: any free port. Default: 9470.")] = None,
    store: Annotated[
        str | None, typer.Option(metavar="URL", help="Valkey or Redis that keeps the newest messages too: redis://…")
    ] = None,
    metrics_port: options.MetricsPort = None,
) -> None:
    """Serve the newest intents and recommendations of each member over HTTP, and their
    changes as events, to UI services. The page of the API is /docs."""
    _enable_logs()
    logger.info("gateway: importing the libraries")

    from stream.gateway.process import run_gateway

    run_gateway(
        options.settings(
            broker=broker,
            domain=domain,
            bundle_url=bundles,
            gateway_host=host,
            gateway_port=port,
            gateway_store=store,
            metrics_port=metrics_port,
        )
    )


def token(
    user: Annotated[
        str | None, typer.Argument(metavar="USER", help="Member that the token reads and posts plays for.")
    ] = None,
    operator: Annotated[
        bool, typer.Option("--operator", help="Reaches every member, and the console's pipeline.")
    ] = False,
    expires: Annotated[float, typer.Option("--expires", min=1, help="Seconds until it runs out.")] = 3600,
    key_file: Annotated[
        Path | None,
        typer.Option("--key-file", help="File of the gateways' secret. Default: INTENTREC_GATEWAY_KEY_FILE."),
    ] = None,
    make_key: Annotated[
        bool, typer.Option("--make-key", help="Write a new secret to the key file first, unless it is there.")
    ] = False,
) -> None:
    """Print a bearer token for a gateway whose key file is a secret: for trying out, and
    for services of your own. In production your login service issues members' tokens."""
    from intentrec_core.errors import ConfigError
    from stream.gateway import access

    settings = options.settings(gateway_key_file=key_file)
    if make_key:
        file = settings.gateway_key_file
        if file is None:
            raise ConfigError("no key file to write; give --key-file FILE")
        typer.echo(f"{'a new secret is' if access.make_key(file) else 'there is a key'} in {file}", err=True)
    if user is None and not operator:
        if make_key:
            return
        raise ConfigError("no member; give USER, or --operator for every member")
    typer.echo(access.issue_token(settings, user or "operator", is_operator=operator, expires_s=expires))


def _enable_logs() -> None:
    """Logs at INFO for operators: assignments, swaps, refused bundles, training runs."""
    for name in _OURS:
        package_logger = logging.getLogger(name)
        package_logger.setLevel(min(package_logger.getEffectiveLevel(), logging.INFO))
