"""Rows as a trainer logs them to wandb, and the history that pandas alone makes of them."""

from __future__ import annotations

import pandas as pd
from pandas.testing import assert_frame_equal

GSM8K = "val-core/openai/gsm8k/acc/mean@1"


def rows_of(n_steps, *, every=5, start=0):
    rows = []
    for step in range(start, n_steps):
        row = {"_step": step, "_runtime": 1.5 * step, "critic/score/mean": step / 7}
        if step % every == 0:
            row[GSM8K] = 0.5 + step / 1000
        rows.append(row)
    return rows


def history_of(rows):
    """Return the history by pandas alone."""
    table = pd.DataFrame(rows).set_index("_step").drop(columns="_runtime").astype(float)
    table.index = table.index.astype(float).rename("step")
    return table[sorted(table.columns)]


def assert_history(run, rows):
    assert_frame_equal(run.history, history_of(rows), check_column_type=False)
