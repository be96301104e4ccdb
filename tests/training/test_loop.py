"""The loop of fit, plan and run: rounds until narrow or spent, and on from where it was stopped.

Runs are curves of a known law, written as verl's file logger writes them; fits and plans are real.
"""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from sweeps import places, write_log

from cbsbayes.errors import CBSDataError
from training.definitions import read_phase
from training.local import Outcome
from training.loop import Goal, run_loop

PHASE = """
title = "four prompts, one group size"
hardware = "cpu"
model = "tiny"
dataset = "add3"
algorithm = "grpo"
[optimizer]
kl_loss = false
[sampling]
prompt_tokens = 16
response_tokens = 8
[validation]
every_updates = 2
[horizon]
updates = 40
samples = 4096
[checkpoint]
every_updates = 0
[seeds]
replicates = [1, 2]
[[block]]
phase = "p1"
n_prompts = [4, 8, 16, 32]
n_rollouts = 8
"""
FIRST = 2 * sum(p * 8 * (40 + 4096 // (p * 8)) for p in (4, 8, 16, 32))
KEY = "val-core/tiny/add3/acc/mean@1"


class Law:
    """Runs whose accuracy is 1 - exp(-step / S), S = 12 (1 + 10 / P) up to seeds of 5 %."""

    def __init__(self, home):
        self.home, self.run_names = home, []

    def __call__(self, cells):
        for cell in cells:
            log = self.home.log(cell.name)
            if log.exists():
                continue
            self.run_names.append(cell.name)
            rng = np.random.default_rng([cell.seed, cell.n_prompts])
            scale = 12 * (1 + 10 / cell.n_prompts) * math.exp(0.05 * rng.normal())
            write_log(log, [(step, {KEY: 1 - math.exp(-step / scale)})
                            for step in range(0, cell.steps + 1, 2)])
        return Outcome(finished=len(cells))


@pytest.fixture
def phase(tmp_path):
    file = tmp_path / "first.toml"
    file.write_text(PHASE)
    return read_phase(str(file))


@pytest.mark.mcmc
def test_rounds_go_on_until_the_budget_is_spent_and_on_where_it_is_raised(tmp_path, phase):
    home, said = places(tmp_path), []
    runs = Law(home)
    reached = run_loop(phase, home, Goal(FIRST + 2_000), run=runs, say=said.append)
    assert not reached
    assert said[0] == "round 1: 8 runs, 2,000 samples left"
    assert "cbs_prompts (n_rollouts=8) at" in said[1]
    assert "samples left" in said[-1]
    rounds = len(list((home.output / "rounds").iterdir()))
    assert rounds >= 2
    before = list(runs.run_names)
    assert len(before) > 8
    assert len(set(before)) == len(before)
    assert not [name for name in before if "_lr" in name]  # the plan's hint at a second rate
    assert not run_loop(phase, home, Goal(FIRST + 2_000), run=runs, say=said.append)
    assert runs.run_names == before  # nothing is run twice
    widths = [math.log(plan["quantity"]["ci_upper"] / plan["quantity"]["ci_lower"]) for plan in (
        json.loads((home.output / "rounds" / f"{k:03d}" / "plan" / "plan.json").read_text())
        for k in range(1, rounds + 1))]
    assert widths[-1] < widths[0]
    assert run_loop(phase, home, Goal(10**9, width=1.01 * widths[0]), run=runs, say=said.append)
    assert runs.run_names == before


def test_runs_that_fail_end_it(tmp_path, phase):
    with pytest.raises(CBSDataError, match=r"1 runs failed .* start the loop again"):
        run_loop(phase, places(tmp_path), Goal(10**6), run=lambda cells: Outcome(failed=1))


def test_logs_that_cannot_be_fitted_end_it_with_the_reason(tmp_path, phase):
    few = dataclasses.replace(phase, cells=phase.cells[:1])
    home = places(tmp_path)
    with pytest.raises(CBSDataError, match=r"^cbsbayes.plan: .*batch"):
        run_loop(few, home, Goal(10**6), run=Law(home))
