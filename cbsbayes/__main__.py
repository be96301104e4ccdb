"""``cbsbayes COMMAND …`` runs a command, ``cbsbayes`` alone lists them."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence

from cbsbayes import __version__
from cbsbayes._command import option_tables

__all__ = ["COMMANDS", "command_of", "main"]

COMMANDS = {name: about["brief"] for name, about in option_tables().items() if "brief" in about}


def command_of(name: str) -> Callable[[Sequence[str]], int]:
    """Return what runs a command; that of the page has the name of a package."""
    module = "report.__main__" if name == "report" else name
    return importlib.import_module(f"cbsbayes.{module}").main


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command named first with what follows it, or print the commands, one a line."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in COMMANDS:
        return command_of(arguments[0])(arguments[1:])
    listed = "\n".join(f"  {name:10s}{what}" for name, what in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="cbsbayes", usage="cbsbayes COMMAND [--help] (or python -m cbsbayes.COMMAND)",
        epilog=listed, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="version", version=f"cbsbayes {__version__}")
    parser.parse_args(arguments)
    print(f"cbsbayes COMMAND [--help] (or python -m cbsbayes.COMMAND)\n{listed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
