"""The README's table of the shipped sweep: ``python benchmarks/readme_numbers.py [FOLDER]``.

Reads ``cbs.csv`` of a fit's folder, ``reports/verl_tiny`` by default, and prints Markdown.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from cbsbayes.report.numbers import estimate

ROWS = [
    ("S after 16 → 32 prompts, at 8 rollouts", "gain_prompts", "n_prompts=16,n_rollouts=8"),
    ("S after 32 → 64 prompts, at 8 rollouts", "gain_prompts", "n_prompts=32,n_rollouts=8"),
    ("S after 8 → 16 rollouts, at 16 prompts", "gain_rollouts", "n_prompts=16,n_rollouts=8"),
    ("prompts where doubling still saves 10 %", "batch_at_gain", "gain=0.1,n_rollouts=8"),
    ("prompt CBS at 8 rollouts", "cbs_prompts", "n_rollouts=8"),
    ("best group size at a fixed batch", "best_n_rollouts", ""),
    ("B_prompt", "B_prompt", ""),
    ("B_rollout", "B_rollout", ""),
    ("S_min, updates", "S_min", ""),
]
THRESHOLDS = (0.5, 0.7, 0.9)


def table(cbs: pd.DataFrame) -> str:
    """Return the README's table as Markdown."""
    lines = ["| | " + " | ".join(f"accuracy {t}" for t in THRESHOLDS) + " |",
             "|---|" + "---|" * len(THRESHOLDS)]
    cbs = cbs.assign(at=cbs["at"].fillna(""))
    for label, quantity, at in ROWS:
        rows = cbs[(cbs["quantity"] == quantity) & (cbs["at"] == at)].set_index("threshold")
        cells = [str(estimate(rows.loc[t])) for t in THRESHOLDS]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    alpha = cbs[cbs["quantity"] == "alpha"].iloc[0]
    lines.append(f"| exponent α | {estimate(alpha)} | | |")
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "reports/verl_tiny")
    print(table(pd.read_csv(folder / "cbs.csv")))


if __name__ == "__main__":
    main()
