"""What reuse does to updates and samples: tables by cell, by reuse factor, along diagonals.

Updates, samples and sample passes of a typical run: with reuse k one trainer step generates P·G
samples and makes k updates on them, so that S updates cost S·P·G/k generated samples and S·P·G
passes of a sample through the optimizer. On an iso-optimisation diagonal, P·k constant, every
trainer step makes the same number of passes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from cbsbayes.decisions.compare_fits import ratio_status
from cbsbayes.models.reuse import ReuseDraws
from cbsbayes.posterior.summary import interval
from cbsbayes.reuse_runs import ReuseRuns
from cbsbayes.sweep.off_policy import OFF_POLICY_KEYS

__all__ = ["CELL_COLUMNS", "DIAGONAL_COLUMNS", "EFFECT_COLUMNS", "cell_table", "diagonal_table",
           "effect_table"]

_ENDS = ("", "_lower", "_upper")


def _three(*names: str) -> list[str]:
    return [f"{name}{end}" for name in names for end in _ENDS]


CELL_COLUMNS = [
    "family", "threshold", "n_prompts", "n_rollouts", "ppo_epochs", "n_runs", "n_reached",
    *_three("steps"), "new_run_lower", "new_run_upper", *_three("samples"), "status",
    *_three("steps_ratio", "samples_ratio"), "ratio_status", "p_fewer_samples", "ci_prob",
    *OFF_POLICY_KEYS]
EFFECT_COLUMNS = ["family", "threshold", "ppo_epochs", "reference", "n_batches",
                  *_three("steps_ratio", "samples_ratio"), "p_fewer_samples", "between_batches",
                  "ci_prob"]
DIAGONAL_COLUMNS = [
    "family", "threshold", "n_rollouts", "passes_per_step", "n_prompts", "ppo_epochs",
    *_three("steps", "samples", "passes"), "status", "p_fewest_samples", "p_fewest_passes",
    "ci_prob"]


def cell_table(runs: ReuseRuns, draws: ReuseDraws, ci_prob: float, seed: int = 0) -> pd.DataFrame:
    """Return the table of ``reuse.csv``: a row per threshold and cell that was run.

    Parameters
    ----------
    runs : ReuseRuns
        The runs compared.
    draws : ReuseDraws
        Their posterior.
    ci_prob : float
        Probability of the equal-tailed intervals.
    seed : int
        Of the draws of a new run.

    Returns
    -------
    DataFrame
        Columns `CELL_COLUMNS`. ``steps`` (updates) and ``samples`` (generated) of a typical run,
        ``new_run`` the interval of updates of one more run, ``_ratio`` over the smallest reuse
        factor run at the same batch; empty as far as runs that ended early, or were past the
        target at once, leave them open (``status``). Clip fraction and KL are means over the
        cell's runs, empty where not logged.
    """
    rng = np.random.default_rng(seed)
    rows = [row for cell in draws.data.cells for row in _cell_rows(runs, draws, cell, ci_prob, rng)]
    table = pd.DataFrame(rows, columns=CELL_COLUMNS)
    return table.sort_values(["threshold", "n_rollouts", "n_prompts", "ppo_epochs"],
                             kind="stable", ignore_index=True)


def _cell_rows(
    runs: ReuseRuns, draws: ReuseDraws, cell: tuple[int, int], ci_prob: float,
    rng: np.random.Generator,
) -> Iterator[dict[str, Any]]:
    first = (cell[0], min(k for b, k in draws.data.cells if b == cell[0]))
    log_s, log_ref = _flat(draws, cell), _flat(draws, first)
    new = log_s + _draws(draws.sigma) * rng.standard_normal(log_s.shape)
    per_update = runs.samples_per_update(*cell)
    cheaper = np.log(per_update / runs.samples_per_update(*first))
    held = (draws.data.batch == cell[0]) & (draws.data.reuse == cell[1])
    common = _named(runs, cell) | {"family": runs.family, "ci_prob": ci_prob,
                                   "n_runs": int(held.sum())}
    common |= {name: runs.runs.loc[held, name].mean() for name in OFF_POLICY_KEYS}
    for t, threshold in enumerate(runs.thresholds.tolist()):
        status, against = _status(draws, cell, t), _status(draws, first, t)
        row = common | {"threshold": threshold, "status": status,
                        "n_reached": int(np.isfinite(draws.data.log_upper[t, held]).sum())}
        row |= _shown("steps", np.exp(log_s[:, t]), status, ci_prob)
        row |= {f"new_run{end}": value for end, value in _ends(np.exp(new[:, t]), status,
                                                            ci_prob).items()}
        row |= _shown("samples", per_update * np.exp(log_s[:, t]), status, ci_prob)
        if cell != first:
            ratio = log_s[:, t] - log_ref[:, t]
            settled = ratio_status(status, against)
            row |= _shown("steps_ratio", np.exp(ratio), settled, ci_prob)
            row |= _shown("samples_ratio", np.exp(ratio + cheaper), settled, ci_prob)
            row |= {"ratio_status": settled, "p_fewer_samples":
                    float((ratio + cheaper < 0).mean()) if settled == "identified" else np.nan}
        yield row


def effect_table(runs: ReuseRuns, draws: ReuseDraws, ci_prob: float) -> pd.DataFrame:
    """Return the table of ``effects.csv``: what a reuse factor does, averaged over batches.

    Only batches run at both the factor and the reference count, their ratios averaged on the log
    scale; ``between_batches`` is the posterior median of the spread τ of that answer.
    """
    rows = []
    for k in range(1, len(runs.factors)):
        batches = [b for b, reuse in draws.data.cells if reuse == k and (b, 0) in draws.data.cells]
        for t, threshold in enumerate(runs.thresholds.tolist()):
            settled = [b for b in batches if ratio_status(
                _status(draws, (b, k), t), _status(draws, (b, 0), t)) == "identified"]
            row = {"family": runs.family, "threshold": threshold, "ppo_epochs": runs.factors[k],
                   "reference": runs.factors[0], "n_batches": len(settled), "ci_prob": ci_prob,
                   "between_batches": float(np.median(draws.tau[..., t]))}
            if settled:
                ratio = np.mean([_flat(draws, (b, k))[:, t] - _flat(draws, (b, 0))[:, t]
                                 for b in settled], axis=0)
                cheaper = np.log(runs.factors[0] / runs.factors[k])
                row |= _shown("steps_ratio", np.exp(ratio), "identified", ci_prob)
                row |= _shown("samples_ratio", np.exp(ratio + cheaper), "identified", ci_prob)
                row["p_fewer_samples"] = float((ratio + cheaper < 0).mean())
            rows.append(row)
    return pd.DataFrame(rows, columns=EFFECT_COLUMNS)


def diagonal_table(runs: ReuseRuns, draws: ReuseDraws, ci_prob: float) -> pd.DataFrame:
    """Return the table of ``diagonals.csv``: cells of one n_prompts × ppo_epochs side by side.

    ``p_fewest_samples`` and ``p_fewest_passes`` are the probabilities that a cell is the best of
    its diagonal, for typical runs; empty where a cell of it is not settled on both sides.
    """
    rows: list[dict[str, Any]] = []
    for (rollouts, passes), cells in _diagonals(runs, draws).items():
        log_s = np.stack([_flat(draws, cell) for cell in cells])  # (cell, draw, threshold)
        samples = log_s + np.log([runs.samples_per_update(*c) for c in cells])[:, None, None]
        total = log_s + np.log([np.prod(runs.batches[b]) for b, _ in cells])[:, None, None]
        for t, threshold in enumerate(runs.thresholds.tolist()):
            status = [_status(draws, cell, t) for cell in cells]
            best = {name: _best(values[:, :, t]) if set(status) == {"identified"}
                    else np.full(len(cells), np.nan)
                    for name, values in (("samples", samples), ("passes", total))}
            for j, cell in enumerate(cells):
                row = _named(runs, cell) | {
                    "family": runs.family, "threshold": threshold, "n_rollouts": rollouts,
                    "passes_per_step": passes, "status": status[j], "ci_prob": ci_prob,
                    "p_fewest_samples": best["samples"][j], "p_fewest_passes": best["passes"][j]}
                for name, values in (("steps", log_s), ("samples", samples), ("passes", total)):
                    row |= _shown(name, np.exp(values[j, :, t]), status[j], ci_prob)
                rows.append(row)
    return pd.DataFrame(rows, columns=DIAGONAL_COLUMNS).sort_values(
        ["threshold", "n_rollouts", "passes_per_step", "ppo_epochs"], ignore_index=True)


def _diagonals(
    runs: ReuseRuns, draws: ReuseDraws
) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """Return the cells by (n_rollouts, passes of a trainer step), where there are two and more."""
    found: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for b, k in draws.data.cells:
        prompts, rollouts = runs.batches[b]
        passes = prompts * rollouts * runs.factors[k] * runs.minibatches
        found.setdefault((rollouts, passes), []).append((b, k))
    return {key: cells for key, cells in sorted(found.items()) if len(cells) > 1}


def _named(runs: ReuseRuns, cell: tuple[int, int]) -> dict[str, Any]:
    prompts, rollouts = runs.batches[cell[0]]
    return {"n_prompts": prompts, "n_rollouts": rollouts, "ppo_epochs": runs.factors[cell[1]]}


def _draws(values: np.ndarray) -> np.ndarray:
    """Return draws with chains joined, shape (draw, threshold)."""
    return values.reshape(-1, values.shape[-1])


def _flat(draws: ReuseDraws, cell: tuple[int, int]) -> np.ndarray:
    return _draws(draws.log_steps(*cell))


def _best(values: np.ndarray) -> np.ndarray:
    """Return how often each cell has the least, from values (cell, draw)."""
    return np.bincount(values.argmin(axis=0), minlength=len(values)) / values.shape[1]


def _status(draws: ReuseDraws, cell: tuple[int, int], t: int) -> str:
    """Return which ends the cell's own runs close."""
    held = (draws.data.batch == cell[0]) & (draws.data.reuse == cell[1])
    lower = np.isfinite(draws.data.log_lower[t, held]).any()
    upper = np.isfinite(draws.data.log_upper[t, held]).any()
    if lower:
        return "identified" if upper else "lower_bound"
    return "upper_bound" if upper else "not_identified"


def _ends(draws: np.ndarray, status: str, ci_prob: float) -> dict[str, float]:
    lower, upper = interval(draws, ci_prob)
    return {"_lower": lower if status in ("identified", "lower_bound") else np.nan,
            "_upper": upper if status in ("identified", "upper_bound") else np.nan}


def _shown(name: str, draws: np.ndarray, status: str, ci_prob: float) -> dict[str, float]:
    middle = float(np.median(draws)) if status == "identified" else np.nan
    return {name: middle} | {f"{name}{end}": value
                             for end, value in _ends(draws, status, ci_prob).items()}
