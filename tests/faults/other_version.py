"""`intentrec`, as a module, on a library that lacks a name: TEST_GONE is its module, class and name, with spaces between."""

from __future__ import annotations

import importlib
import os


def main() -> None:
    """Takes the name away before anything of ours is imported, then runs the command line."""
    module, owner, name = os.environ["TEST_GONE"].split()
    delattr(getattr(importlib.import_module(module), owner), name)
    from stream.cli import main as run

    run()


if __name__ == "__main__":
    main()
