"""`intentrec`, as a module, that serves a bundle whatever the size of its messages: only the check of each message is left."""

from __future__ import annotations

import sys

from stream.bundles import hot_swap


def main() -> None:
    """Leaves out the check of a loaded bundle, then runs the command line."""
    hot_swap.check_message_sizes = lambda *_, **__: None
    from stream.cli import main as run

    run()


if __name__ == "__main__":
    sys.exit(main())
