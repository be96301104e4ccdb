"""Do planned sweeps need fewer samples than a fixed grid? ``python benchmarks/planned_sweeps.py``.

Simulated trainings whose noise scales, exponent and speed are drawn anew are swept twice. Both
sweeps begin with the first six runs of the fixed grid (n_prompts 32 … 1024 at n_rollouts 8). The
grid then goes on in its order (rollouts varied, splits of 2,048, then the next seed; n_rollouts 1,
which no group law takes, left out), every run 600 updates long. The planned sweep goes on with the
run that `cbsbayes.plan` ranks first per sample, refitted after every run. The goal is the width
of the 90 % interval of the log prompt CBS at 8 rollouts and accuracy .70 that the grid has after
two seeds, 34 runs; the grid's samples are counted up to the first run with which it was as narrow,
the planned sweep stops when it is.

Printed: samples of the planned over those of the grid, median and quartiles over the trainings,
counted in full and, since a run past its last threshold teaches nothing more, with every run of
both sweeps stopped there; and how often each sweep's final interval holds the truth. With
``--rule random`` the run is drawn from the same candidates instead of ranked: what the candidates
alone, their batches and lengths, save. Finished trainings are kept in a file: the same command goes
on where it was stopped.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from cbsbayes.decisions.candidates import Choices, Request, candidates, tried_runs
from cbsbayes.decisions.information import planned_quantity
from cbsbayes.decisions.next_runs import plan_runs
from cbsbayes.decisions.step_times import Cost
from cbsbayes.inference.nuts import SamplerSettings
from cbsbayes.posterior.fit import Fit
from cbsbayes.posterior.fit_sweep import fit_sweep
from cbsbayes.simulation.sweep import design_table
from cbsbayes.simulation.truth import Truth, steps_over_progress
from cbsbayes.sweep.dataset import new_sweep
from cbsbayes.validation.engine import Ledger
from cbsbayes.validation.families import prior_exponent
from cbsbayes.validation.models import Reading, true_logs

THRESHOLDS, TARGET, ROLLOUTS = (0.60, 0.65, 0.70), 0.70, 8
EVERY, LENGTH, ITEMS, SIGMA_RUN = 25, 600, 1319, 0.08
START, GRID_SEEDS, MOST_PLANNED = 6, 2, 50
LAW, QUANTITY = "two_axis_free", f"cbs_prompts@n_rollouts={ROLLOUTS}"
PROMPTS, GROUPS, LARGEST = (32, 64, 128, 256, 512, 1024), (2, 4, 8, 16, 32), 8192


@dataclass
class Sweep:
    """Runs made so far: batch, length and curve of each, and their samples."""

    truth: Truth
    rng: np.random.Generator
    runs: list[tuple[int, int, int, np.ndarray]] = field(default_factory=list)

    def add(self, prompts: int, rollouts: int, updates: int) -> None:
        """Simulate one run and keep its curve."""
        step = np.arange(0, updates + 1, EVERY, dtype=float)
        effect = self.rng.normal(0.0, SIGMA_RUN)
        tau = np.linspace(0.0, updates * np.exp(abs(effect)), 2001)
        needed = steps_over_progress(self.truth, [prompts], [rollouts], tau)[0] * np.exp(effect)
        level = self.truth.level(np.interp(step, needed, tau))
        self.runs.append((prompts, rollouts, updates, self.rng.binomial(ITEMS, level) / ITEMS))

    def dataset(self) -> xr.Dataset:
        """Return the sweep as the package reads it."""
        longest = max(updates for _, _, updates, _ in self.runs)
        accuracy = np.full((len(self.runs), 1, longest // EVERY + 1), np.nan)
        for k, (_, _, _, curve) in enumerate(self.runs):
            accuracy[k, 0, :len(curve)] = curve
        table = {"run": [f"run_{k}" for k in range(len(self.runs))], "seed": range(len(self.runs)),
                 "n_prompts": [run[0] for run in self.runs],
                 "n_rollouts": [run[1] for run in self.runs]}
        return new_sweep(table, accuracy=accuracy, metric=["simulated/accuracy"], n_items=[ITEMS],
                         step=np.arange(0, longest + 1, EVERY, dtype=float))

    def samples(self, crossings: xr.Dataset) -> tuple[float, float]:
        """Return samples in full, and with every run stopped past its last threshold."""
        batch = np.array([p * g for p, g, _, _ in self.runs], dtype=float)
        updates = np.array([run[2] for run in self.runs], dtype=float)
        past = crossings["upper"].sel(threshold=TARGET).values
        return float(batch @ updates), float(batch @ np.fmin(updates, past))


@dataclass
class Known:
    """What a sweep says: its fit, the quantity's interval (log), and the samples."""

    fit: Fit
    ends: tuple[float, float]
    samples: tuple[float, float]

    @property
    def width(self) -> float:
        """Log width of the interval."""
        return self.ends[1] - self.ends[0]


def known(sweep: Sweep, seed: int, draws: int) -> Known:
    """Fit the runs made so far."""
    settings = SamplerSettings(draws=draws, tune=400, chains=2, cores=1, random_seed=seed)
    fit = fit_sweep(sweep.dataset(), law=LAW, thresholds=THRESHOLDS, alternatives=False,
                    sampler=settings)
    values = np.log(planned_quantity(fit, QUANTITY, TARGET).values)
    low, high = np.quantile(values, [0.05, 0.95])
    return Known(fit, (float(low), float(high)), sweep.samples(fit.crossings))


def one_truth(seed: int) -> Truth:
    """Return a training drawn anew: noise scales and speed within factors, the exponent's prior."""
    rng = np.random.default_rng([seed, 1])
    prompt, rollout, scale = np.exp(rng.normal(0.0, [0.5, 0.5, 0.25])) * [90.0, 500.0, 120.0]
    return Truth(law="two_axis", alpha=prior_exponent(seed), scale=float(scale),
                 noise={"B_prompt": (float(prompt), 6.0), "B_rollout": (float(rollout), 9.0)})


def outcome(state: Known, sweep: Sweep, true: float) -> dict[str, Any]:
    """Return what is kept of a sweep that has ended."""
    return {"runs": len(sweep.runs), "samples": state.samples[0], "stopped": state.samples[1],
            "width": state.width,
            "covers": state.ends[0] <= true <= state.ends[1]}


def planned_run(state: Known, seed: int, rule: str) -> tuple[int, int, int]:
    """Return batch and length of the run ranked first per sample, or of any."""
    choices = Choices(PROMPTS, GROUPS, every=EVERY)
    if rule == "random":
        options = candidates(state.fit, tried_runs(state.fit), choices, Cost(), TARGET, seed)
        options = options[options["total_batch"] <= LARGEST]
        drawn = options.iloc[np.random.default_rng([seed, 5]).integers(len(options))]
        return int(drawn["n_prompts"]), int(drawn["n_rollouts"]), int(drawn["updates"])
    plan = plan_runs(state.fit, Request(QUANTITY, TARGET, choices=choices, data_sets=64, draws=600,
                                        seed=seed))
    first = plan.table[plan.table["total_batch"] <= LARGEST].iloc[0]
    return int(first["n_prompts"]), int(first["n_rollouts"]), int(first["updates"])


def one_training(seed: int, draws: int, rule: str) -> dict[str, Any]:
    """Sweep one training by the grid and by plan."""
    begin = time.perf_counter()
    truth = one_truth(seed)
    true = true_logs(truth, TARGET, Reading(n_rollouts=ROLLOUTS))[f"cbs_prompts({ROLLOUTS})"]
    table = design_table("all", GRID_SEEDS)
    table = table[table["n_rollouts"] > 1].sort_values("seed", kind="stable")
    in_order = list(zip(table["n_prompts"], table["n_rollouts"], strict=True))
    start = Sweep(truth, np.random.default_rng([seed, 2]))
    for prompts, rollouts in in_order[:START]:
        start.add(prompts, rollouts, LENGTH)
    first = known(start, seed, draws)
    grid = Sweep(truth, np.random.default_rng([seed, 3]), list(start.runs))
    outcomes = []
    for prompts, rollouts in in_order[START:]:
        grid.add(prompts, rollouts, LENGTH)
        outcomes.append(outcome(known(grid, seed, draws), grid, true))
    goal = outcomes[-1]["width"]
    record = {"grid": next(entry for entry in outcomes if entry["width"] <= goal)}
    planned = Sweep(truth, np.random.default_rng([seed, 4]), list(start.runs))
    state = first
    while state.width > goal and len(planned.runs) < START + MOST_PLANNED:
        planned.add(*planned_run(state, seed + len(planned.runs), rule))
        state = known(planned, seed, draws)
    record["planned"] = outcome(state, planned, true)
    record["planned"]["batches"] = [list(run[:3]) for run in planned.runs[START:]]
    record["start"], record["whole_grid"] = outcome(first, start, true), outcomes[-1]
    seconds = round(time.perf_counter() - begin, 1)
    return record | {"goal": goal, "alpha": truth.alpha, "seconds": seconds}


def report(records: list[dict[str, Any]]) -> str:
    """Return the printed result."""
    asked = [r for r in records if r["start"]["width"] > r["goal"]]
    missed = sum(r["planned"]["width"] > r["goal"] for r in asked)
    lines = [f"{len(records)} trainings; in {len(records) - len(asked)} the start was as narrow as "
             f"the goal, in {missed} the planned sweep was not within {MOST_PLANNED} runs (counted "
             "as dearer than any); log width of the goal, median: "
             f"{np.median([r['goal'] for r in records]):.2f}", "",
             "| sweep | runs, median | log width, median | 90 % interval holds the truth |",
             "|---|---|---|---|"]
    for kind in ("start", "grid", "whole_grid", "planned"):
        part = [r[kind] for r in records]
        runs, width = (np.median([p[key] for p in part]) for key in ("runs", "width"))
        lines.append(f"| {kind.replace('_', ' ')} | {runs:g} | {width:.2f} | "
                     f"{np.mean([p['covers'] for p in part]):.2f} |")
    lines += ["", f"samples of the planned sweep over those of the grid, {len(asked)} trainings",
              "", "| counted | median | lower quartile | upper quartile | below 1 |",
              "|---|---|---|---|---|"]
    for key, what in (("samples", "in full"), ("stopped", "stopped past the last threshold")):
        for after in (False, True):
            ratio = np.array([_ratio(r, key, after) for r in asked])
            low, middle, high = np.quantile(ratio, [0.25, 0.5, 0.75], method="inverted_cdf")
            name = f"{what}, {'after the start' if after else 'start included'}"
            lines.append(f"| {name} | {middle:.2f} | {low:.2f} | {high:.2f} | "
                         f"{np.mean(ratio < 1):.2f} |")
    return "\n".join(lines)


def _ratio(record: dict[str, Any], key: str, after: bool) -> float:
    if record["planned"]["width"] > record["goal"]:
        return float("inf")
    before = record["start"][key] if after else 0.0
    return float((record["planned"][key] - before) / (record["grid"][key] - before))


def main() -> None:
    """Sweep, keep, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trainings", type=int, default=24)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--rule", choices=["information", "random"], default="information")
    parser.add_argument("--minutes", type=float, default=float("inf"),
                        help="begin no training after so many")
    parser.add_argument("-o", "--output", type=Path, default=Path("outputs/planned_sweeps.jsonl"))
    options = parser.parse_args()
    settings = {"draws": options.draws, "start": START, "length": LENGTH,
                "thresholds": list(THRESHOLDS), "law": LAW}
    settings |= {"rule": options.rule} if options.rule != "information" else {}
    ledger = Ledger(options.output, settings)
    end = time.monotonic() + 60 * options.minutes
    for seed in range(options.trainings):
        if seed in ledger.finished or time.monotonic() > end:
            continue
        ledger.add(seed, one_training(seed, options.draws, options.rule))
        print(seed, ledger.records[seed], flush=True)
    done = [ledger.records[seed] for seed in range(options.trainings) if seed in ledger.finished]
    print(report(done))


if __name__ == "__main__":
    main()
