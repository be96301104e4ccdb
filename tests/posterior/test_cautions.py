"""What is said beside the numbers: laws in doubt, one run far off, two models apart."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from cbsbayes.models.laws import get_law
from cbsbayes.models.parameters import PRIORS
from cbsbayes.posterior.cautions import (
    cautions,
    disagreements,
    odd_run,
    odd_run_sentence,
    structure_caution,
)

FREE, FIXED = get_law("two_axis_free"), get_law("two_axis")
CHAINS, DRAWS = 4, 500


def posterior(*, alpha_mean=0.75, alpha_sd=0.05, sigma_run=0.08):
    rng = np.random.default_rng(0)
    dims = ("chain", "draw")
    return xr.Dataset({"alpha": (dims, rng.normal(alpha_mean, alpha_sd, (CHAINS, DRAWS))),
                       "sigma_run": (dims, np.full((CHAINS, DRAWS), sigma_run))})


def crossings():
    return xr.Dataset(coords={"n_prompts": ("run", [32, 64, 64, 64]),
                              "n_rollouts": ("run", [8, 8, 16, 32])})


def law_table(weights=None, **scores):
    """Return the comparison of laws: name to elpd, or to (elpd, runs with a bad k-hat)."""
    rows = [(name, *(value if isinstance(value, tuple) else (value, 0)), (weights or {}).get(name))
            for name, value in scores.items()]
    return pd.DataFrame(rows, columns=["law", "elpd", "n_bad_k", "weight"]).fillna({"weight": 0.0})


def cbs(median=100.0, *, status="identified", scale_status="identified"):
    rows = [(0.6, "cbs_prompts", "n_rollouts=8", median, status),
            (0.6, "B_prompt", "", 90.0, "identified"),
            (0.6, "B_rollout", "", 500.0, scale_status)]
    return pd.DataFrame(rows, columns=["threshold", "quantity", "at", "median", "status"])


def warned(*, law=FREE, post=None, table=None, others=None, main=None, runs=None):
    return cautions(law, posterior() if post is None else post,
                    crossings() if runs is None else runs,
                    law_table(two_axis_free=-10.0) if table is None else table, others or {},
                    cbs() if main is None else main, PRIORS.alpha)


def two_laws(ending="", elpd=-13, median=40.0, status="identified"):
    """Return a fit with exponent 1 and 1/2 beside it: scores -10 and `elpd`, their CBS."""
    names = f"two_axis{ending}", f"two_axis_sqrt{ending}"
    return {"law": get_law(f"two_axis_free{ending}"),
            "table": law_table(**{names[0]: -10, names[1]: elpd}),
            "others": {names[0]: cbs(100), names[1]: cbs(median, status=status)}}


BOTH = {"two_axis_free": -10.0, "total": -12.0}
TOTAL = {"law": get_law("total"), "post": posterior().drop_vars("alpha"),
         "table": law_table(total=-10.0)}
ONE_AXIS = crossings().assign_coords(n_rollouts=("run", [8] * 4))


@pytest.mark.parametrize("given", [
    {}, {"post": posterior(alpha_sd=0.17)}, {"post": posterior(alpha_mean=1.2)},
    {"law": FIXED, "post": posterior(alpha_sd=0.5).drop_vars("alpha")},
    {"post": posterior(sigma_run=0.14)}, two_laws(median=60.0), two_laws(elpd=-15),
    two_laws(status="upper_bound"), two_laws("_plain", median=60.0), two_laws("_plain", elpd=-15),
    two_laws("_plain", status="upper_bound"),
    {"table": law_table({"two_axis_free": 0.75, "total": 0.25}, **BOTH)},
    {"table": law_table(two_axis_free=(-10.0, 0), total=(-20.0, 5))}, TOTAL,
    {"law": FIXED, "post": TOTAL["post"], "table": law_table(two_axis=-10.0), "runs": ONE_AXIS}])
def test_a_clean_fit_has_no_caution(given):
    assert warned(**given) == []


@pytest.mark.parametrize(("given", "said"), [
    ({"post": posterior(alpha_sd=0.19)},
     "^The exponent is hardly identified .posterior sd 0.19, prior 0.30"),
    ({"post": posterior(alpha_mean=0.3)}, "^The exponent sits at an end of its range"),
    ({"post": posterior(alpha_mean=1.45)}, "^The exponent sits at an end of its range"),
    (two_laws(), "differ by up to 2.5 times: quote the CBS only together with its law.$"),
    (two_laws("_plain"), "differ by up to 2.5 times: quote the CBS only together with its law.$"),
    ({"post": posterior(sigma_run=0.2)}, "^Runs differ by 0.20 in log S at one batch"),
    ({"table": law_table({"two_axis_free": 0.6, "total": 0.4}, **BOTH)},
     "^Only the total batch may count: the law that knows nothing else holds 0.40 of the weight"
     ".*averaged.csv"),
    ({"table": law_table(two_axis_free=(-10.0, 2), total=(-20.0, 5))},
     "^Runs that carry so much weight"),
    *(({"main": cbs(scale_status=status)}, "^B_rollout not identified at 1 of 2 entries")
      for status in ("upper_bound", "lower_bound", "not_identified")),
    (TOTAL | {"runs": ONE_AXIS}, "takes exponent 1")])
def test_what_limits_the_numbers_is_said_once(given, said):
    [text] = warned(**given)
    assert re.search(said, text)


def test_laws_of_one_axis_beside_those_of_two():
    [text] = structure_caution(get_law("total"), {"total": 0.5, "power": 0.1, "two_axis": 0.4})
    assert text.startswith("Prompts and rollouts may count apart: laws of two axes hold 0.40 of")
    assert structure_caution(get_law("power"), {"power": 0.5, "total": 0.5}) == []


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


@pytest.mark.parametrize("effects", [SMALL, shifted(3, np.log(2)), np.linspace(-1.5, 1.5, 8),
                                     shifted([6, 7], 2.5)])  # a batch that is off as a whole
def test_ordinary_scatter_has_no_odd_run(effects):
    assert odd_run(*fitted(effects)) is None


def test_a_run_that_never_arrived_is_as_slow_as_it_is_known_to_be():
    predictive, crossings = fitted(shifted(3, np.log(10)))
    crossings["upper"][3] = np.inf
    assert odd_run(predictive, crossings).run == "r3"
    crossings["lower"][3] = 1.0
    assert odd_run(predictive, crossings) is None


def critical(median, status="identified", quantity="cbs_prompts"):
    rows = [(quantity, t, "n_rollouts=8", "prompts", status, median, median / 2, 2 * median)
            for t in (0.5, 0.6, 0.7)]
    return pd.DataFrame(rows, columns=["quantity", "threshold", "at", "unit", "status", "median",
                                       "ci_lower", "ci_upper"])


def test_what_leaving_it_out_changes_is_said():
    odd = odd_run(*fitted(shifted(3, np.log(10))))
    text = odd_run_sentence(odd, critical(100.0), critical(40.0))
    assert text.startswith("Run r3 needed 9.")
    assert "while the others at its batch (1) did not" in text
    assert text.endswith("changes cbs_prompts at n_rollouts=8 (threshold 0.6) from 100 (50 to 200) "
                         "to 40 (20 to 80) prompts.")
    assert "to below 80 prompts." in odd_run_sentence(odd, critical(100.0),
                                                      critical(40.0, "upper_bound"))
    assert odd_run_sentence(odd, critical(1.0), "two batches are left").endswith(
        "Without it there is no fit: two batches are left.")


def intervals(shift=0.0, n=5, quantity="gain_prompts"):
    lower = np.linspace(0.5, 0.9, n)
    return pd.DataFrame({"quantity": quantity, "at": "n_prompts=64,n_rollouts=8",
                         "threshold": np.linspace(0.5, 0.9, n), "ci_lower": lower + shift,
                         "ci_upper": lower + shift + 0.05})


def test_intervals_apart_are_counted_where_both_are_known_and_asked():
    [text] = disagreements(intervals(), intervals(0.2))
    assert "5 of 5 numbers (gain_prompts)" in text
    unknown = intervals(0.2).assign(ci_lower=np.nan, ci_upper=np.nan)
    assert disagreements(intervals(), unknown) == []
    assert disagreements(intervals(quantity="alpha"), intervals(0.2, quantity="alpha")) == []
