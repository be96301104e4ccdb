"""A stand-in for a fit with tables as the package writes them, small enough to make at once."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pandas as pd
import xarray as xr

from cbsbayes.models.laws import get_law
from cbsbayes.report.page import PageFigure

THRESHOLDS = (0.5, 0.6, 0.7, 0.8)
UNITS = {"S_min": "updates", "B_prompt": "prompts", "B_rollout": "prompts × (rollouts − 1)",
         "alpha": "1", "gain_prompts": "1", "gain_rollouts": "1", "cbs_prompts": "prompts",
         "cbs_samples": "samples", "cbs_rollouts": "rollouts", "best_n_rollouts": "rollouts",
         "batch_at_gain": "prompts", "B_noise": "samples"}


@dataclass
class StandInFit:
    cbs: pd.DataFrame
    comparison: pd.DataFrame
    runs: pd.DataFrame
    law_table: pd.DataFrame
    averaged: pd.DataFrame
    others: dict[str, pd.DataFrame]
    sweep: xr.Dataset
    cross_check: pd.DataFrame | None = None
    group: str = "tiny transformer · three-digit addition · grpo"
    law: object = field(default_factory=lambda: get_law("two_axis_free"))
    thresholds: np.ndarray = field(default_factory=lambda: np.array(THRESHOLDS))
    settings: dict = field(default_factory=lambda: {
        "ci_prob": 0.9, "seed": 7, "draws": 1000, "chains": 4, "sampler": "nutpie",
        "thresholds": list(THRESHOLDS), "use_gradient_noise": False})
    verdict: dict = field(default_factory=lambda: {
        "trusted": True,
        "sentences": ["No divergences in 4,000 draws; the largest r_hat is 1.004 and the "
                      "smallest effective sample size 1,212.",
                      "The scatter between runs is 0.12 in log S, within what seeds show."],
        "checks_made": {"divergences": True, "r_hat": True, "ess_bulk": True,
                        "posterior_predictive": True}})


def cbs_row(threshold, quantity, at, median, spread, *, law="two_axis_free", status="identified"):
    lower, upper = median * np.exp(-1.645 * spread), median * np.exp(1.645 * spread)
    return {"group": "g", "law": law, "threshold": threshold, "quantity": quantity, "at": at,
            "unit": UNITS[quantity], "median": median, "mean": median * np.exp(spread**2 / 2),
            "sd": median * spread, "ci_lower": lower, "ci_upper": upper, "ci_prob": 0.9,
            "ci_kind": "eti", "status": status, "r_hat": 1.002, "ess_bulk": 2134.0,
            "ess_tail": 1875.0}


def cbs_table(law="two_axis_free", alpha=0.62):
    """Return a quantity table in which the numbers follow from the law."""
    rows = [cbs_row(np.nan, "alpha", "", alpha, 0.16, law=law)] if law == "two_axis_free" else []
    for i, t in enumerate(THRESHOLDS):
        b_p, b_r, s_min = 60.0 + 11 * i, 300.0 + 90 * i, 22.0 + 7 * i
        for p in (4, 8, 16, 32, 64, 128, 256):
            gain = ((1 + (b_p + b_r / 7) / (2 * p)) / (1 + (b_p + b_r / 7) / p)) ** alpha
            rows.append(cbs_row(t, "gain_prompts", f"n_prompts={p},n_rollouts=8", gain, 0.04,
                                law=law))
        for g in (2, 4, 8, 16, 32):
            before, after = ((1 + (b_p + b_r / (n - 1)) / 16) ** alpha for n in (g, 2 * g))
            rows.append(cbs_row(t, "gain_rollouts", f"n_prompts=16,n_rollouts={g}",
                                after / before, 0.03, law=law))
        for g in (2, 8, 64):
            cbs = (b_p + b_r / (g - 1)) / (2 ** (1 / alpha) - 1)
            rows.append(cbs_row(t, "cbs_prompts", f"n_rollouts={g}", cbs, 0.3, law=law))
        rows += [cbs_row(t, "cbs_samples", "n_rollouts=8", 8 * cbs, 0.3, law=law),
                 cbs_row(t, "cbs_rollouts", "n_prompts=16", 1.8 + i, 0.2, law=law,
                         status="upper_bound" if i == 0 else "identified"),
                 cbs_row(t, "best_n_rollouts", "", 1 + (b_r / b_p) ** 0.5, 0.2, law=law),
                 cbs_row(t, "B_prompt", "", b_p, 0.35, law=law,
                         status="lower_bound" if i == 3 else "identified"),
                 cbs_row(t, "B_rollout", "", b_r, 0.9, law=law,
                         status="not_identified" if i == 0 else "identified"),
                 cbs_row(t, "S_min", "", s_min, 0.11, law=law)]
    return pd.DataFrame(rows)


def comparison_table():
    rows = []
    for i, t in enumerate(THRESHOLDS):
        for axis, at in (("total", ""), ("prompts", "n_rollouts=8"), ("rollouts", "n_prompts=16")):
            scale = {"total": 700.0, "prompts": 60.0, "rollouts": 9.0}[axis] * (1 + 0.2 * i)
            common = {"group": "g", "threshold": t, "axis": axis, "at": at}
            rows.append(common | {"method": "least_squares", "S_min": 44.0 + i,
                                  "B_noise": scale / 2, "ci_lower": -scale / 3,
                                  "ci_upper": 1.4 * scale, "n_runs_used": 21 - i,
                                  "n_runs_dropped": i, "r2": 0.93})
            rows.append(common | {"method": "log_least_squares", "S_min": 41.0 + i,
                                  "B_noise": scale * 0.9, "ci_lower": scale * 0.5,
                                  "ci_upper": 1.6 * scale, "n_runs_used": 21 - i,
                                  "n_runs_dropped": i, "r2": 0.91})
            if axis != "total":
                rows.append(common | {"method": "posterior", "S_min": 23.0 + i, "B_noise": scale,
                                      "ci_lower": scale * 0.8, "ci_upper": 1.3 * scale,
                                      "n_runs_used": 21, "n_runs_dropped": 0, "r2": np.nan})
    return pd.DataFrame(rows)


def runs_table():
    rows = []
    grid = [(p, 8) for p in (4, 8, 16, 32, 64, 128, 256)] + [(16, g) for g in (1, 2, 4, 16, 32)]
    for p, g in grid:
        used = g > 1
        row = {"run": f"cbs_p1_tiny_add_np{p}_n{g}", "name": f"np{p} n{g}", "phase": "p1",
               "n_prompts": p, "n_rollouts": g, "total_batch": float(p * g), "seed": 0,
               "state": "finished", "used": used, "first_step": 2.0, "last_step": 400.0,
               "reason": "" if used else "one rollout per prompt: the raw reward is another "
               "estimator, without a group baseline", "attempts": 1, "remark": ""}
        for i, t in enumerate(THRESHOLDS):
            never = p == 4 and t == 0.8
            lower = float(int((22 + 7 * i) * (1 + 90 / p) ** 0.62) // 2 * 2)
            row |= {f"lower_{t:g}": 400.0 if never else lower,
                    f"upper_{t:g}": np.inf if never else lower + 2}
        rows.append(row)
    return pd.DataFrame(rows)


def law_comparison():
    return pd.DataFrame({"law": ["two_axis_free", "two_axis_sqrt", "two_axis", "total"],
                         "elpd": [-182.4, -183.1, -186.9, -241.0], "se": [11.2, 11.3, 11.9, 14.4],
                         "elpd_diff": [0.0, -0.7, -4.5, -58.6], "dse": [0.0, 1.1, 3.2, 10.1],
                         "warning": [False, False, False, True]})


def sweep():
    return xr.Dataset(attrs={
        "title": "tiny_grpo", "history": "2026-11-21 made by cbsbayes.ingest", "metric": "addition",
        "direction": "increasing", "schema_version": 1, "digest": "0123456789abcdef" * 4,
        "notes": json.dumps(["2 attempts of np64 n8 were merged at step 120."])})


def stand_in_fit(**changes):
    parts = {"cbs": cbs_table(), "comparison": comparison_table(), "runs": runs_table(),
             "law_table": law_comparison(), "sweep": sweep(),
             "averaged": cbs_table("average").query("quantity not in ['B_prompt', 'B_rollout']"),
             "others": {"two_axis": cbs_table("two_axis", 1.0),
                        "two_axis_sqrt": cbs_table("two_axis_sqrt", 0.5)}}
    return StandInFit(**(parts | changes))


def png(width=9.0, height=4.2):
    """Return a real figure as PNG bytes."""
    import io

    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110)
    ax = figure.subplots()
    batch = np.geomspace(4, 256)
    ax.loglog(batch, 30 * (1 + 90 / batch) ** 0.62)
    ax.set(xlabel="n_prompts (prompts per update)", ylabel="updates to target")
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def stand_in_figures():
    image = png()
    drawn = [("steps_prompts", "Updates to target against the batch"),
             ("samples_prompts", "Samples to target"), ("crossing_check", "Replicated crossings"),
             ("cbs_prompts", "Prompt CBS against the threshold"), ("iso_batch_steps", "Splits"),
             ("training_1_p1", "Accuracy against updates"), ("odd_one", "A figure of no section")]
    figures = [PageFigure(slug, title, "Points are runs, the band is the 90 % interval.", image)
               for slug, title in drawn]
    return [*figures, PageFigure("gradient_noise", "Gradient noise", "", None,
                                    "No run logged grad_noise/… keys."),
            PageFigure("wall_clock", "Wall clock", "", None, "No run logged its step time.")]


EXTRA = {"command": "python -m cbsbayes.fit data/tiny_grpo.nc -o report",
         "versions": SimpleNamespace(pymc="6.4.0", arviz="1.3.0", cbsbayes="0.1.0").__dict__,
         "diagnostics": {"divergences": 0, "largest r_hat": 1.004, "smallest ess_bulk": 1212.0}}
