"""The command ``intentrec``: its tree, its exit codes, and the one place where an error becomes a line for a person."""

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

from intentrec_core.errors import DeviceLost, IntentRecError
from stream.cli import bench, bundles, data, demo, dlq, learning, services, state, topics, traffic
from stream.cli.progress import complain

EXIT_CODES = """\
0 done · 1 failed · 2 a setting, option or file is wrong · 3 data cannot be had · 4 a bundle must not serve ·
5 state and log disagree · 6 no broker · 7 inference failed · 9 not drained in time · 70 a mistake of ours · 130 interrupted"""
#: The numbers are those of intentrec_core.errors; 70 and 130 are what Unix uses.
UNEXPECTED = 70
INTERRUPTED = 130

app = typer.Typer(
    name="intentrec",
    help="""Read every play as it happens: what each member is up to, and what to show them next.

    Begin with [bold]intentrec demo[/bold]: it needs nothing but this program. Each command's --help has examples.
    Settings come from options, else from INTENTREC_* in the environment, else from defaults.""",
    epilog=f"[dim]Exit codes: {EXIT_CODES}[/dim]",
    rich_markup_mode="rich",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _root(
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error, and the libraries' own logs."),
) -> None:
    """Global options; --debug is understood anywhere on the line, see ``main``."""


demo.register(app)
learning.register(app)
data.register(app)
traffic.register(app)
services.register(app)
topics.register(app)
bundles.register(app)
dlq.register(app)
state.register(app)
bench.register(app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and ends the process with its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    _set_up_logs(debug)
    sys.exit(run([argument for argument in given if argument != "--debug"], debug=debug))


def run(arguments: list[str], *, debug: bool = False) -> int:
    """One command; returns its exit code."""
    try:
        app(arguments, prog_name="intentrec")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # `intentrec ... | head`: the reader has enough; without this, Python complains at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except IntentRecError as error:
        if debug:
            traceback.print_exc()
        complain(str(error))
        if isinstance(error, DeviceLost):
            _leave(error.exit_code)
        return error.exit_code
    except Exception as error:
        if debug:
            traceback.print_exc()
        complain(f"unexpected {type(error).__name__}: {error}; run it again with --debug and report what it prints")
        return UNEXPECTED
    return 0


def _leave(exit_code: int) -> NoReturn:
    """Ends the process as it stands: what is let go of on a lost device asks that device once more, and aborts the process."""
    with contextlib.suppress(OSError):  # whoever read them may be gone
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(exit_code)


def _set_up_logs(debug: bool) -> None:
    """Logs go to standard error: warnings; all with --debug. Worker and trainer turn theirs on."""
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    # Clients log every reconnection and retry as an error; what matters reaches the person through our own errors.
    for name in ("aiokafka", "faust", "mode", "kafka"):
        logging.getLogger(name).setLevel(logging.DEBUG if debug else logging.CRITICAL)
    if not debug:
        warnings.filterwarnings("ignore", category=DeprecationWarning)
