"""The three lines of a verdict, each check met and not met."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from cbsbayes.posterior.verdict import (
    identified_line,
    reached_line,
    sampler_checks,
    sampling_line,
    verdict,
)

CHAINS, DRAWS = 4, 500


def tree(*, shift=0.0, sticky=0.0, diverging=0):
    """Return draws; `shift` moves one chain, `sticky` is the correlation of successive draws."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(CHAINS, DRAWS, 3))
    draws = noise.copy()
    for k in range(1, DRAWS):
        draws[:, k] = sticky * draws[:, k - 1] + np.sqrt(1 - sticky**2) * noise[:, k]
    draws[0, :, 1] += shift
    flags = np.zeros((CHAINS, DRAWS), dtype=bool)
    flags.flat[:diverging] = True
    posterior = xr.Dataset({"S_min": (("chain", "draw", "threshold"), draws),
                            "sigma_run": (("chain", "draw"), np.exp(draws[:, :, 0]))})
    stats = xr.Dataset({"diverging": (("chain", "draw"), flags)})
    return xr.DataTree.from_dict({"posterior": posterior, "sample_stats": stats})


def test_good_chains_pass():
    checks, worst = sampler_checks(tree())
    assert all(checks.values())
    assert worst["ess_tail_min"] > 400
    assert sampling_line(checks, worst)["passed"]
    assert "none diverged" in sampling_line(checks, worst)["sentence"]


@pytest.mark.parametrize(("how", "check", "sentence"), [
    ({"shift": 0.8}, "r_hat_below_1_01", "the chains do not agree: r_hat reaches 1."),
    ({"sticky": 0.9}, "ess_bulk_above_400", "too few effective draws:"),
    ({"diverging": 3}, "no_divergences", "3 draws diverged"),
])
def test_each_failed_check_is_said(how, check, sentence):
    checks, worst = sampler_checks(tree(**how))
    assert not checks[check]
    line = sampling_line(checks, worst)
    assert not line["passed"]
    assert line["sentence"].startswith("Sampling not passed: ")
    assert sentence in line["sentence"]
    assert "none diverged" not in line["sentence"]


GOOD = {"passed": True, "sentence": "Good."}
BAD = {"passed": False, "sentence": "Bad."}
CHECKS = {"r_hat_below_1_01": True, "ess_bulk_above_400": True, "no_divergences": True}
WORST = {"r_hat_max": 1.0, "ess_bulk_min": 900.0, "divergences": 0.0}


@pytest.mark.parametrize(("passed", "reached", "identified", "against", "level", "title"), [
    (True, GOOD, GOOD, [], "good", "Sampling checks passed"),
    (True, BAD, GOOD, [], "limited", "not every threshold was reached"),
    (True, GOOD, BAD, [], "limited", "bounds are all there is"),
    (True, GOOD, GOOD, ["S rises."], "limited", "but the data contradict the law"),
    (True, BAD, BAD, ["S rises."], "limited", "contradict the law and not every threshold"),
    (False, GOOD, GOOD, [], "failed", "Sampling checks not passed"),
    (False, BAD, BAD, ["S rises."], "failed", "Sampling checks not passed"),
])
def test_three_lines_are_judged_apart(passed, reached, identified, against, level, title):
    checks = CHECKS | {"no_divergences": passed}
    found = verdict(checks, WORST, reached, identified, against, ["A note."])
    assert found["level"] == level
    assert title in found["title"]
    assert found["sampling"]["passed"] == passed
    assert found["sentences"] == [found["sampling"]["sentence"], reached["sentence"],
                                  identified["sentence"], *against, "A note."]
    assert (found["checks_made"], found["diagnostics"]) == (checks, WORST)


def found_crossings(*status):
    """Return crossings by status of one run for each of several batch sizes, and two thresholds."""
    dims, values = ("run", "threshold"), np.array(status)
    n = len(status)
    return xr.Dataset(
        {"status": (dims, values)},
        coords={"run": [f"r{k}" for k in range(n)], "threshold": [0.5, 0.6],
                "n_prompts": ("run", 2 ** np.arange(3, 3 + n)), "n_rollouts": ("run", [8] * n),
                "total_batch": ("run", 2.0 ** np.arange(6, 6 + n))})


def test_how_many_runs_and_batches_reached_a_threshold():
    every = reached_line(found_crossings(*[[1, 1]] * 4), {})
    assert every["passed"]
    assert every["sentence"] == "Reached: 0.5, 0.6 by all 4 runs (4 batch sizes)."
    some = reached_line(found_crossings([1, 2], [1, 1], [-1, 1], [0, 1]), {})
    assert some["passed"]
    assert some["sentence"] == ("Reached: 0.5 by all 3 runs (3 batch sizes); "
                                "0.6 by 3 of 4 runs (3 of 4 batch sizes).")
    assert some["thresholds"][1] == {"threshold": 0.6, "n_reached": 3, "n_runs": 4,
                                     "n_batches_reached": 3, "n_batches": 4}
    few = reached_line(found_crossings([1, 2], [1, 2], [1, 1], [1, 1]), {})
    assert not few["passed"]
    assert few["sentence"].endswith("Fewer than 3 batch sizes reached 0.6: any law fits them.")
    fewer = reached_line(found_crossings(*[[1, 1]] * 4), {65.0: "no run reached it"})
    assert not fewer["passed"]
    assert "Threshold 65 is left out: no run reached it." in fewer["sentence"]
    assert fewer["left_out"] == {"65": "no run reached it"}


def test_bounds_alone_are_not_identified():
    rows = [(0.6, "cbs_prompts", "identified"), (0.6, "cbs_rollouts", "upper_bound"),
            (0.7, "cbs_prompts", "lower_bound"), (0.7, "cbs_rollouts", "not_identified"),
            (np.nan, "alpha", "identified")]
    table = pd.DataFrame(rows, columns=["threshold", "quantity", "status"])
    line = identified_line(table)
    assert not line["passed"]
    assert line["sentence"] == (
        "Identified: 2 of 5 quantities (2 bounds, 1 not at all). No critical batch size is "
        "identified at 0.7: bounds are all there is.")
    assert identified_line(table[:2])["passed"]
    assert identified_line(table[:2])["sentence"].startswith("Identified: 1 of 2 quantities (1 b")
    assert identified_line(table[:1])["sentence"] == "Identified: 1 of 1 quantities."
