"""The command line: ``fastconv COMMAND`` or ``python -m fastconv COMMAND``.

A command is a function that adds its parser to the others and sets as ``run`` what is to be done:
a function from the parsed arguments to the exit status, which imports what it needs only then.
"""

import argparse
import sys
from collections.abc import Callable, Sequence

from . import __version__
from .bench.command import add_parser as add_bench
from .demo.command import add_parser as add_demo
from .explain_command import add_parser as add_explain
from .info_command import add_parser as add_info
from .warmup_command import add_parser as add_warmup

COMMANDS = (add_bench, add_demo, add_explain, add_info, add_warmup)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in ``argv``, by default that of the process; returns the exit status."""
    parser = argparse.ArgumentParser(prog="fastconv", description="Convolution layers for NumPy.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add_parser in COMMANDS:
        add_parser(commands)
    arguments = parser.parse_args(argv)
    run: Callable[[argparse.Namespace], int] = arguments.run
    try:
        return run(arguments)
    except KeyboardInterrupt:
        return 130  # as shells report a program ended by Ctrl-C


if __name__ == "__main__":
    sys.exit(main())
