"""``python -m cbsbayes`` lists the commands."""

from __future__ import annotations

import sys

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "ingest": "read the logs of a sweep (wandb, verl, TensorBoard, tables) into one dataset",
    "fit": "credible intervals on the critical batch size; tables, figures, a page",
    "simulate": "a sweep with known truth",
}


def main() -> int:
    """Print the commands, one a line."""
    print("python -m cbsbayes.COMMAND [--help]")
    for name, what in COMMANDS.items():
        print(f"  {name:10s}{what}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
