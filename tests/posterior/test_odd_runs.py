"""One run an order of magnitude off: named, with what leaving it out changes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from cbsbayes.posterior.odd_runs import odd_run, odd_run_sentence

P = [8, 8, 16, 16, 32, 32, 64, 64]
SMALL = [0.05, -0.08, 0.02, -0.03, 0.1, -0.06, 0.04, -0.01]


def fitted(off, n_prompts=P):
    """Return S as a law has it, and crossings of runs so far off that, log updates."""
    n = len(off)
    law = np.log(50 * (1 + 40 / np.array(n_prompts)))[:, None] + [0.0, 0.3]
    draws = np.exp(law + 0.1 * np.random.default_rng(0).normal(size=(2, 2000, n, 2)))
    names, thresholds = [f"r{k}" for k in range(n)], [0.5, 0.6]
    predictive = xr.DataArray(draws, dims=("chain", "draw", "run", "threshold"),
                              coords={"run": names, "threshold": thresholds})
    steps = np.exp(law + np.asarray(off)[:, None])
    dims = ("run", "threshold")
    crossings = xr.Dataset(
        {"lower": (dims, 0.99 * steps), "upper": (dims, steps)},
        coords={"run": names, "threshold": thresholds, "n_prompts": ("run", n_prompts),
                "n_rollouts": ("run", [8] * n), "total_batch": ("run", 8.0 * np.array(n_prompts))})
    return predictive, crossings


def shifted(index, by):
    effects = np.array(SMALL)
    effects[index] += by
    return effects


@pytest.mark.parametrize("by", [np.log(10), -np.log(10)])
def test_the_odd_run_is_named(by):
    odd = odd_run(*fitted(shifted(3, by)))
    assert odd is not None
    assert (odd.run, odd.replicates) == ("r3", 1)
    assert odd.factor == pytest.approx(np.exp(by), rel=0.1)


@pytest.mark.parametrize("effects", [SMALL, shifted(3, np.log(2)), np.linspace(-1.5, 1.5, 8)])
def test_ordinary_scatter_has_no_odd_run(effects):
    assert odd_run(*fitted(effects)) is None


def test_a_batch_that_is_off_as_a_whole_has_no_odd_run():
    effects = shifted(6, 2.5)
    effects[7] += 2.5
    assert odd_run(*fitted(effects)) is None


def test_a_run_that_never_arrived_is_as_slow_as_it_is_known_to_be():
    predictive, crossings = fitted(shifted(3, np.log(10)))
    crossings["upper"][3] = np.inf
    assert odd_run(predictive, crossings).run == "r3"
    crossings["lower"][3] = 1.0
    assert odd_run(predictive, crossings) is None


def cbs(median, status="identified", quantity="cbs_prompts"):
    rows = [(quantity, t, "n_rollouts=8", "prompts", status, median, median / 2, 2 * median)
            for t in (0.5, 0.6, 0.7)]
    return pd.DataFrame(rows, columns=["quantity", "threshold", "at", "unit", "status", "median",
                                       "ci_lower", "ci_upper"])


def test_what_leaving_it_out_changes_is_said():
    odd = odd_run(*fitted(shifted(3, np.log(10))))
    said = odd_run_sentence(odd, cbs(100.0), cbs(40.0))
    assert said.startswith("Run r3 needed 9.")
    assert "while 1 other(s) at its batch did not" in said
    assert said.endswith("changes cbs_prompts at n_rollouts=8 (threshold 0.6) from 100 (50 to 200) "
                         "to 40 (20 to 80) prompts.")
    assert "to below 80 prompts." in odd_run_sentence(odd, cbs(100.0), cbs(40.0, "upper_bound"))
    assert odd_run_sentence(odd, cbs(1.0), "two batches are left").endswith(
        "Without it there is no fit: two batches are left.")
