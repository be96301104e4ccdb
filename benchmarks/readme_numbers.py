"""The README's numbers of the shipped sweep: ``python benchmarks/readme_numbers.py [FOLDER]``.

Reads a fit's folder, ``reports/verl_tiny`` by default: ``cbs.csv`` for the table in Markdown, with
``--card`` ``fit.json`` for the answer. ``--write README.md`` puts both in their places there.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import pandas as pd

from cbsbayes.report.text import at_text, doubled_text, estimate, quantity_label

ROWS = [
    ("gain_prompts", "n_prompts=16,n_rollouts=8"),
    ("gain_prompts", "n_prompts=32,n_rollouts=8"),
    ("gain_rollouts", "n_prompts=16,n_rollouts=8"),
    ("batch_at_gain", "gain=0.1,n_rollouts=8"),
    ("cbs_prompts", "n_rollouts=8"),
    ("best_n_rollouts", ""), ("B_prompt", ""), ("B_rollout", ""), ("S_min", ""),
]
THRESHOLDS = (0.5, 0.7, 0.9)


def label(quantity: str, at: str) -> str:
    """Return a row's label in words."""
    if quantity.startswith("gain_"):
        return f"S after over before, {doubled_text(quantity, at)}"
    return quantity_label(quantity) + (f", {at_text(at)}" if at else "")


def table(cbs: pd.DataFrame) -> str:
    """Return the README's table as Markdown."""
    lines = ["| | " + " | ".join(f"accuracy {t}" for t in THRESHOLDS) + " |",
             "|---|" + "---|" * len(THRESHOLDS)]
    cbs = cbs.assign(at=cbs["at"].fillna(""))
    for quantity, at in ROWS:
        rows = cbs[(cbs["quantity"] == quantity) & (cbs["at"] == at)].set_index("threshold")
        cells = [str(estimate(rows.loc[t])) for t in THRESHOLDS]
        lines.append(f"| {label(quantity, at)} | " + " | ".join(cells) + " |")
    alpha = cbs[cbs["quantity"] == "alpha"].iloc[0]
    lines.append(f"| {quantity_label('alpha')} | {estimate(alpha)} | | |")
    return "\n".join(lines)


def card(folder: Path) -> str:
    """Return the answer as a block of Markdown."""
    answer = json.loads((folder / "fit.json").read_text(encoding="utf-8"))["answer"]
    return "\n".join(f"    {sentence}" for sentence in answer)


def written(text: str, folder: Path) -> str:
    """Return the README with both blocks as they are now."""
    for name, block in (("card", card(folder)),
                        ("numbers", table(pd.read_csv(folder / "cbs.csv")))):
        text = re.sub(rf"(<!-- {name}: .*? -->\n\n).*?(\n\n<!-- end -->)",
                      lambda found, block=block: found[1] + block + found[2], text, flags=re.DOTALL)
    return text


def main() -> None:
    """Print the table or the card, or write both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path("reports/verl_tiny"))
    parser.add_argument("--card", action="store_true", help="the answer instead of the table")
    parser.add_argument("--write", type=Path, metavar="README", help="put both into this file")
    options = parser.parse_args()
    if options.write is not None:
        text = options.write.read_text(encoding="utf-8")
        options.write.write_text(written(text, options.folder), encoding="utf-8")
        return
    print(card(options.folder) if options.card else table(pd.read_csv(options.folder / "cbs.csv")))


if __name__ == "__main__":
    main()
