"""Runs from top to bottom, those of one batch together, smallest batch first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from cbsbayes.plots.reading import batch_label

__all__ = ["RunRows", "stack_runs"]

_GAP = 0.9


@dataclass(frozen=True)
class RunRows:
    """Where each run stands.

    Attributes
    ----------
    y : array, shape (run,)
        Height of every run; 0 is the lowest.
    ticks, labels
        Middle height and words of every batch.
    height : float
        Height of the highest run.
    """

    y: np.ndarray
    ticks: list[float]
    labels: list[str]
    height: float

    @property
    def inches(self) -> float:
        """Return how tall a figure with these rows should be."""
        return min(1.5 + 0.095 * (self.height + 1), 14.0)

    def label(self, ax: Axes, *, two_axes: bool) -> None:
        """Label the y axis of `ax` with the batches."""
        ax.set_yticks(self.ticks, labels=self.labels)
        ax.set_ylim(-1.0, self.height + 1.0)
        ax.grid(visible=False, axis="y")
        ax.set_ylabel("Prompts × rollouts" if two_axes else "Batch size")


def stack_runs(runs: pd.DataFrame) -> RunRows:
    """Return a row per run, with a gap between batches.

    Parameters
    ----------
    runs : DataFrame
        `total_batch`, `n_prompts`, `n_rollouts` per run.

    Returns
    -------
    RunRows
    """
    depth, ticks, labels = 0.0, [], []
    down = np.empty(len(runs))
    numbers = runs.reset_index(drop=True)
    for _, group in numbers.groupby(["total_batch", "n_prompts", "n_rollouts"]):
        rows = depth + np.arange(len(group))
        down[group.index.to_numpy()] = rows
        ticks.append(float(rows.mean()))
        first = group.iloc[0]
        labels.append(batch_label(first["n_prompts"], first["n_rollouts"], first["total_batch"]))
        depth = rows[-1] + 1 + _GAP
    height = float(down.max()) if len(runs) else 0.0
    return RunRows(height - down, [height - tick for tick in ticks], labels, height)
