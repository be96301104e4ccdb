"""``python -m cbsbayes`` lists the commands."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "ingest": "read the logs of a sweep (wandb, verl, TensorBoard, tables) into one dataset",
    "fit": "credible intervals on the critical batch size; tables, figures, a page",
    "allocate": "which batch to run: the best split, a target met, updates against samples",
    "plan": "which run next: expected information for its price",
    "compare": "fits side by side: ratios of critical batch sizes and gains, as posteriors",
    "simulate": "a sweep with known truth",
    "validate": "do the intervals hold the truth: coverage, calibration, real seeds",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Print the commands, one a line; anything but ``--help`` as an argument is refused."""
    listed = "\n".join(f"  {name:10s}{what}" for name, what in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="python -m cbsbayes", usage="python -m cbsbayes.COMMAND [--help]", epilog=listed,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args(argv)
    print(f"python -m cbsbayes.COMMAND [--help]\n{listed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
