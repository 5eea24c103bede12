"""``python -m stream.cli``: the command line without the installed script."""

from stream.cli import main

main()
