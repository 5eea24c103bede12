"""The command line: one module a group of commands, nothing heavy imported before a command needs it."""

from stream.cli.root import main

__all__ = ["main"]
