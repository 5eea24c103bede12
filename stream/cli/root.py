"""The command ``intentrec``: its command tree, its exit codes, and the one place where errors are printed."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import NoReturn

import typer

from intentrec_core.device import NEEDS_TORCH
from intentrec_core.errors import ConfigError, DeviceLost, IntentRecError
from stream.cli import (
    bundles,
    data,
    demo,
    dlq,
    doctor,
    domain,
    explain,
    importing,
    items,
    kafka_setup,
    learning,
    services,
    state,
    traffic,
)
from stream.cli.progress import print_error

EXIT_CODES = """\
0 success · 1 failed · 2 invalid setting, option or file · 3 data not available ·
4 bundle refused · 5 state and log disagree · 6 broker not available ·
7 inference failed · 9 not drained · 70 internal error (please report) ·
130 interrupted"""
#: 1 to 9 are defined in intentrec_core.errors; 70 (EX_SOFTWARE) and 130 (128 + SIGINT) are Unix conventions.
UNEXPECTED = 70
INTERRUPTED = 130

app = typer.Typer(
    name="intentrec",
    help="""Streaming personalization: every play updates a member's predicted intents and recommendations within milliseconds.

    Start with [bold]intentrec demo[/bold]: it needs no broker and no configuration. Each command's --help has examples.
    Settings are read from options, then from INTENTREC_* environment variables, then from defaults.""",
    epilog=f"[dim]Exit codes: {EXIT_CODES}[/dim]",
    rich_markup_mode="rich",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _root(
    debug: bool = typer.Option(False, "--debug", help="Print tracebacks and the libraries' logs."),
) -> None:
    """Global options. ``main`` accepts --debug anywhere on the command line."""


demo.register(app)
importing.register(app)
domain.register(app)
learning.register(app)
data.register(app)
traffic.register(app)
services.register(app)
kafka_setup.register(app)
bundles.register(app)
items.register(app)
dlq.register(app)
state.register(app)
explain.register(app)
doctor.register(app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and ends the process with its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    set_up_logs(debug)
    sys.exit(run([argument for argument in given if argument != "--debug"], debug=debug))


def run(
    arguments: list[str], *, debug: bool = False, command: typer.Typer | None = None, name: str = "intentrec"
) -> int:
    """Runs one command line, of ``intentrec`` or of another ``command`` called ``name``; returns its exit code."""
    try:
        (command or app)(arguments, prog_name=name)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except KeyboardInterrupt:
        return INTERRUPTED
    except (
        BrokenPipeError
    ):  # `intentrec ... | head` has closed the pipe; without this line Python prints an error at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except IntentRecError as error:
        if debug:
            traceback.print_exc()
        print_error(str(error))
        if isinstance(error, DeviceLost):
            _exit_at_once(error.exit_code)
        return error.exit_code
    except Exception as error:  # users get one line, whatever it is
        if debug:
            traceback.print_exc()
        if isinstance(error, ModuleNotFoundError) and error.name == "torch":
            print_error(NEEDS_TORCH)
            return ConfigError.exit_code
        print_error(f"internal error: {type(error).__name__}: {error}; run again with --debug and report the output")
        return UNEXPECTED
    return 0


def _exit_at_once(exit_code: int) -> NoReturn:
    """Exits without cleanup: freeing memory on a lost device calls that device, which aborts the process."""
    with contextlib.suppress(OSError):  # the reader of the pipe may be gone
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(exit_code)


def set_up_logs(debug: bool) -> None:
    """Logs warnings to standard error, or everything with --debug. Worker and trainer enable their own logs."""
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    # Kafka clients log every reconnection and retry as an error. Failures that matter become errors of our own.
    for name in ("aiokafka", "faust", "mode", "kafka"):
        logging.getLogger(name).setLevel(logging.DEBUG if debug else logging.CRITICAL)
    if not debug:
        logging.getLogger("asyncio").addFilter(_is_no_dropped_failure)
        warnings.filterwarnings("ignore", category=DeprecationWarning)


def _is_no_dropped_failure(record: logging.LogRecord) -> bool:
    """A filter of asyncio's log: hides failures of the broker that nothing awaited.

    A Kafka client that is fenced, closed or cut off drops futures of its own that have failed. asyncio would print a traceback
    for each of them, long after the failure was handled.
    """
    from aiokafka.errors import KafkaError

    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, KafkaError | IntentRecError | ConnectionError)
