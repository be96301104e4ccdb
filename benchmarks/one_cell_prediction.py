"""Predict every other batch from the runs and the gradient noise of one.

``python benchmarks/one_cell_prediction.py``

The runs of a single batch (n_prompts, n_rollouts) are fitted with measured gradient noise as data;
the crossings of all other runs are laid beside 90 % predictive intervals for one new run at their
batch. Each batch is the anchor in turn, unless ``--anchor`` names one: with a single anchor the
luck of its two or three seeds is in all the errors alike. ``tiny_grpo``: noise from eight snapshots
of one other run, with standard errors (plain gradient unless ``--geometry adam``); ``verl_tiny``
and ``verl_lr``: noise that the anchor's own runs logged.

Printed by law: share of crossings inside (a crossing is known between two evaluations; of the
predictive probability between them the part inside counts; thresholds that no run of the anchor is
seen to cross are left out), median log width, root mean square and
mean of observed over predicted log S, averaged over the seeds of a batch first (``rms_cell``: over
thresholds too). ``seeds`` is how far single runs scatter around the mean of their batch.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from left_out_seeds import DATA, SWEEPS, share_inside

from cbsbayes.crossings.intervals import INTERVAL, LEFT, UNUSABLE, find_crossings
from cbsbayes.errors import CBSDataError
from cbsbayes.inference.sampling import SamplerSettings
from cbsbayes.noise.logged import probes_at_accuracy
from cbsbayes.posterior.fit import Fit
from cbsbayes.posterior.fit_sweep import fit_sweep
from cbsbayes.sweep.files import read_sweep

VERL_LR = (0.5, 0.6, 0.7, 0.8)
LAWS = ("two_axis_sqrt", "two_axis_free", "two_axis")


def snapshots(path: Path, geometry: str = "sgd", group: int = 8) -> pd.DataFrame:
    """Return the snapshots of tiny_grpo in the form of `cbsbayes.models.measured_noise`.

    Of the two measurements of a snapshot the one from more prompts is taken.
    """
    table = pd.read_parquet(path)
    table = table[(table["geometry"] == geometry) & (table["n_rollouts"] == group)]
    table = table.sort_values("n_prompts_used").groupby("step").last()
    names = {"val_acc": "level", "g2": "g_sq", "g2_se": "g_sq_se", "tr_prompt": "tr_between",
             "tr_prompt_se": "tr_between_se", "tr_rollout": "tr_within",
             "tr_rollout_se": "tr_within_se"}
    return table.rename(columns=names)[list(names.values())].assign(n_rollouts=group)


def cells_of(sweep: xr.Dataset) -> list[tuple[int, int]]:
    """Return the batches of a sweep, sorted."""
    return sorted(set(zip(sweep["n_prompts"].values.tolist(), sweep["n_rollouts"].values.tolist(),
                          strict=True)))


def at_cell(sweep: xr.Dataset, cell: tuple[int, int]) -> np.ndarray:
    """Return which runs have a batch, shape (run,)."""
    return ((sweep["n_prompts"].values == cell[0]) & (sweep["n_rollouts"].values == cell[1]))


def crossed(runs: xr.Dataset, thresholds: tuple[float, ...]) -> list[float]:
    """Return the thresholds that at least one run is seen to cross."""
    found = find_crossings(runs, thresholds)
    seen = (found["status"] == INTERVAL).any("run").values
    return found["threshold"].values[seen].tolist()


def predicted(fit: Fit, held: xr.Dataset, anchor: tuple[int, int]) -> pd.DataFrame:
    """Return a row per crossing of the runs held out."""
    crossings = find_crossings(held, fit.thresholds, metric=fit.settings["metric"])
    cells, rows = cells_of(held), []
    draws = fit.new_run(*np.transpose(cells)).transpose("sample", "batch", "threshold").values
    for name in held["run"].values.astype(str):
        run = crossings.sel(run=name)
        b = cells.index((int(run["n_prompts"]), int(run["n_rollouts"])))
        for k, t in enumerate(fit.thresholds.tolist()):
            found = run.sel(threshold=t)
            status, low, high = (float(found[v]) for v in ("status", "lower", "upper"))
            if status == UNUSABLE:
                continue
            lower, middle, upper = np.quantile(draws[:, b, k], [0.05, 0.5, 0.95])
            observed = 0.5 * (np.log(low) + np.log(high)) if status == INTERVAL else np.nan
            rows.append({"anchor": anchor, "cell": cells[b], "threshold": t,
                         "inside": share_inside(np.exp(draws[:, b, k]),
                                                low if status != LEFT else 0.0, high),
                         "width": upper - lower, "error": observed - middle,
                         "log_s": observed})
    return pd.DataFrame(rows)


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Return cover, width and errors by threshold and over all."""
    parts = [(f"{t:g}", part) for t, part in rows.groupby("threshold")] + [("all", rows)]
    return pd.DataFrame([{"accuracy": name, **_scores(part)} for name, part in parts])


def _scores(rows: pd.DataFrame) -> dict[str, float]:
    means = rows.groupby(["anchor", "cell", "threshold"])["error"].mean()
    over_thresholds = means.groupby(["anchor", "cell"]).mean()
    scatter = rows.groupby(["anchor", "cell", "threshold"])["log_s"].std()
    return {"crossings": len(rows), "cover": rows["inside"].mean(),
            "width": rows["width"].median(), "rms": np.sqrt(np.nanmean(means**2)),
            "rms_cell": np.sqrt(np.nanmean(over_thresholds**2)), "mean": means.mean(),
            "seeds": np.sqrt(np.nanmean(scatter**2))}


def _cell(text: str) -> tuple[int, int]:
    prompts, rollouts = text.split(",")
    return int(prompts), int(rollouts)


def main() -> None:
    """Fit, predict and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweep", choices=[*SWEEPS, "verl_lr"], default="tiny_grpo")
    parser.add_argument("--learning-rate", type=float, default=1e-4,
                        help="of verl_lr: runs at this rate alone (%(default)s)")
    parser.add_argument("--anchor", type=_cell, metavar="P,G", help="this batch only")
    parser.add_argument("--laws", default=",".join(LAWS), help="comma-separated")
    parser.add_argument("--geometry", choices=["sgd", "adam"], default="sgd")
    parser.add_argument("--runs", type=int, default=99, help="at most so many runs of the anchor")
    options = parser.parse_args()
    folder, thresholds = DATA / options.sweep, SWEEPS.get(options.sweep, VERL_LR)
    sweep = read_sweep(folder / "sweep.nc")
    chosen = sweep["n_rollouts"].values >= 2
    if options.sweep == "verl_lr":
        chosen &= np.isclose(sweep["learning_rate"].values, options.learning_rate)
    sweep = sweep.isel(run=np.flatnonzero(chosen))
    noise = (snapshots(folder / "grad_noise.parquet", options.geometry)
             if options.sweep == "tiny_grpo" else probes_at_accuracy(sweep, None))
    settings, started = SamplerSettings(chains=2, draws=1000, tune=1000), time.time()
    for law in options.laws.split(","):
        parts = []
        for anchor in [options.anchor] if options.anchor else cells_of(sweep):
            here = at_cell(sweep, anchor)
            runs = sweep.isel(run=np.flatnonzero(here)[: options.runs])
            try:
                fit = fit_sweep(runs, law=law, thresholds=crossed(runs, thresholds),
                                alternatives=False, noise=noise, sampler=settings)
            except CBSDataError as error:
                print(f"{anchor}: not fitted: {error}")
                continue
            parts.append(predicted(fit, sweep.isel(run=np.flatnonzero(~here)), anchor))
            offset = np.quantile(fit.posterior["noise_offset"], [0.05, 0.5, 0.95]).round(2)
            worst = fit.verdict["diagnostics"]
            print(f"{law}, {anchor}: delta {offset[1]} ({offset[0]} to {offset[2]}), cover "
                  f"{parts[-1]['inside'].mean():.2f}, r_hat {worst['r_hat_max']:.3f}, "
                  f"{worst['divergences']:.0f} divergences", flush=True)
        print(f"\n{options.sweep}, {law}, at most {options.runs} runs of one batch")
        print(summary(pd.concat(parts)).round(3).to_string(index=False), "\n", flush=True)
    print(f"{time.time() - started:.0f} s")


if __name__ == "__main__":
    main()
