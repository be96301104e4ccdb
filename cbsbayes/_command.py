"""What all commands share: exit statuses and one-line errors instead of tracebacks."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

from cbsbayes.errors import CBSDataError, one_line

__all__ = ["EXIT_INPUT", "EXIT_OK", "EXIT_SAMPLING", "numbers", "run_command"]

EXIT_OK = 0
EXIT_INPUT = 1  # the user's input is at fault; 2 is argparse's own status for usage
EXIT_SAMPLING = 3  # everything was written, but sampling checks were not passed


def run_command(body: Callable[[], int], command: str) -> int:
    """Run a command's body and turn faults of the input into one line on stderr.

    Parameters
    ----------
    body : callable
        The command's work; returns its exit status.
    command : str
        Name shown before the message, e.g. ``"cbsbayes.fit"``.

    Returns
    -------
    int
        The body's status, or 1 where the input was at fault.
    """
    # matrices are small here: BLAS threads would wait for each other longer than they work
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        return body()
    except CBSDataError as error:
        message = str(error)
    except OSError as error:
        place = f": {error.filename}" if error.filename else ""
        message = f"{error.strerror or error}{place}"
    except RuntimeError as error:
        if "cannot cache function" not in str(error):
            raise
        message = ("compiled code can be kept nowhere; set NUMBA_CACHE_DIR to a folder that can be "
                   "written")
    except KeyboardInterrupt:
        print(f"{command}: interrupted; nothing half-written was left behind", file=sys.stderr)
        return 130
    print(f"{command}: {one_line(message)}", file=sys.stderr)
    return EXIT_INPUT


def numbers(text: str) -> list[float]:
    """Return a comma-separated list of numbers, as the type of an option.

    Raises
    ------
    argparse.ArgumentTypeError
        If a part is no number.
    """
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of numbers like 0.60,0.65,0.70") from None
