"""The batches of a sweep, phase by phase, as the study this package grew from laid them out.

===== =========================================================================
p1    prompts varied: n_prompts 32 … 1024 at n_rollouts 8
p2b   rollouts varied: n_rollouts 1 … 64 at n_prompts 128
p2c   iso-batch: 2048 samples split (2048, 1) … (64, 32)
batch one axis: total batch 32 … 8192, no prompts and rollouts told apart
===== =========================================================================
"""

from __future__ import annotations

import pandas as pd

from cbsbayes.errors import CBSDataError

__all__ = ["DESIGNS", "cells", "design_table"]

DESIGNS: dict[str, list[tuple[int, int]]] = {
    "p1": [(2**k, 8) for k in range(5, 11)],
    "p2b": [(128, 2**k) for k in range(7)],
    "p2c": [(2048 // 2**k, 2**k) for k in range(6)],
    "batch": [(2**k, 1) for k in range(5, 14)],
}
"""Cells (n_prompts, n_rollouts) by phase; of ``batch`` only the product counts."""

_ALL = ("p1", "p2b", "p2c")


def cells(design: str) -> list[tuple[str, int, int]]:
    """Return (phase, n_prompts, n_rollouts) of a design such as ``"p1+p2b"`` or ``"all"``.

    Raises
    ------
    CBSDataError
        If a phase is unknown, or ``batch`` is mixed with phases of two axes.
    """
    phases = list(_ALL) if design == "all" else design.split("+")
    for phase in phases:
        if phase not in DESIGNS:
            raise CBSDataError(f"unknown design {phase!r}; valid: all, or one or more of "
                               f"{', '.join(DESIGNS)} joined by '+'")
    if "batch" in phases and len(phases) > 1:
        raise CBSDataError(f"design {design!r} mixes one axis with two; simulate 'batch' alone")
    return [(phase, *cell) for phase in dict.fromkeys(phases) for cell in DESIGNS[phase]]


def design_table(design: str, seeds: int) -> pd.DataFrame:
    """Return one row per run of a design, each cell repeated for every seed.

    Parameters
    ----------
    design : str
        As for `cells`.
    seeds : int
        Replicates per cell.

    Returns
    -------
    pandas.DataFrame
        Columns ``run, name, phase, seed, n_prompts, n_rollouts, total_batch``; n_prompts and
        n_rollouts are -1 for one axis. Names are those `cbsbayes.ingest` understands.
    """
    if seeds < 1:
        raise CBSDataError(f"seeds is {seeds}; valid: 1 and more")
    rows = []
    for phase, prompts, rollouts in cells(design):
        one_axis = phase == "batch"
        shape = f"batch_b{prompts}" if one_axis else f"cbs_{phase}_np{prompts}_nr{rollouts}"
        rows += [{
            "run": f"{shape}_s{seed}", "name": f"{shape}_s{seed}", "phase": phase, "seed": seed,
            "n_prompts": -1 if one_axis else prompts, "n_rollouts": -1 if one_axis else rollouts,
            "total_batch": float(prompts * rollouts),
        } for seed in range(seeds)]
    return pd.DataFrame(rows)
