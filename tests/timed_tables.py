"""Step-time tables with known coefficients, for tests."""

from __future__ import annotations

import numpy as np

CELLS = np.array([(p, 8) for p in (4, 8, 16, 32, 64)] + [(16, g) for g in (2, 4, 16, 32)],
                 dtype=float)
TRUTH = np.array([20.0, 0.5, 0.1])
NAMES = ("t_0", "c_p", "c_r")


def terms(cells):
    """Return 1, prompts and samples of cells of shape (cell, 2)."""
    return np.stack([np.ones(len(cells)), cells[:, 0], cells.prod(axis=1)], axis=1)


def table(rng, *, sigma=0.1, truth=TRUTH, cells=CELLS, seeds=3):
    """Return seconds and terms of a table of runs with a log-normal spread."""
    rows = np.repeat(cells, seeds, axis=0)
    return terms(rows) @ truth * np.exp(sigma * rng.normal(size=len(rows))), terms(rows)
