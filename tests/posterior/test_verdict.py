"""Every check and every caution, met and not met."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from cbsbayes.models.laws import get_law
from cbsbayes.models.priors import PRIORS
from cbsbayes.posterior.verdict import (
    _about_one_axis,
    cautions,
    identified_line,
    reached_line,
    sampler_checks,
    sampling_line,
    structure_caution,
    verdict,
)

FREE, FIXED = get_law("two_axis_free"), get_law("two_axis")
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


def test_one_bad_entry_of_an_array_is_enough():
    checks, worst = sampler_checks(tree(shift=3.0))
    assert worst["r_hat_max"] > 1.4
    assert checks["no_divergences"]


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


def said(*, law=FREE, post=None, table=None, others=None, main=None):
    return cautions(law, posterior() if post is None else post,
                    crossings(),
                    law_table(two_axis_free=-10.0) if table is None else table, others or {},
                    cbs() if main is None else main, PRIORS.alpha)


def test_a_clean_fit_has_no_caution():
    assert said() == []


def test_an_exponent_that_is_the_priors():
    assert said(post=posterior(alpha_sd=0.17)) == []
    [text] = said(post=posterior(alpha_sd=0.19))
    assert text.startswith("The exponent is hardly identified (posterior sd 0.19, prior 0.30)")
    assert said(law=FIXED, post=posterior(alpha_sd=0.5).drop_vars("alpha")) == []


def test_an_exponent_at_an_end_of_its_range():
    for end in (0.3, 1.45):
        [text] = said(post=posterior(alpha_mean=end))
        assert text.startswith("The exponent sits at an end of its range")
    assert said(post=posterior(alpha_mean=1.2)) == []


@pytest.mark.parametrize("ending", ["", "_plain"])
def test_exponents_that_predict_alike_but_disagree_on_the_cbs(ending):
    names = f"two_axis{ending}", f"two_axis_sqrt{ending}"
    law = get_law(f"two_axis_free{ending}")
    alike, apart = law_table(**{names[0]: -10, names[1]: -13}), law_table(
        **{names[0]: -10, names[1]: -15})
    disagree, agree = ({names[0]: cbs(100), names[1]: cbs(m)} for m in (40.0, 60.0))
    [text] = said(law=law, table=alike, others=disagree)
    assert text.endswith("differ by up to 2.5 times: quote the CBS only together with its law.")
    assert said(law=law, table=alike, others=agree) == []
    assert said(law=law, table=apart, others=disagree) == []
    unknown = {names[0]: cbs(100), names[1]: cbs(40, status="upper_bound")}
    assert said(law=law, table=alike, others=unknown) == []


def test_the_fitted_law_itself_is_one_of_the_two():
    table = law_table(two_axis=-10, two_axis_sqrt=-11)
    post = posterior().drop_vars("alpha")
    [text] = said(law=FIXED, post=post, table=table, others={"two_axis_sqrt": cbs(300)},
                  main=cbs(100))
    assert "3.0 times" in text


def test_runs_that_differ_more_than_seeds_do():
    [text] = said(post=posterior(sigma_run=0.2))
    assert text.startswith("Runs differ by 0.20 in log S at one batch")
    assert said(post=posterior(sigma_run=0.14)) == []


def test_laws_that_count_batches_otherwise():
    both = {"two_axis_free": -10.0, "total": -12.0}
    assert said(table=law_table({"two_axis_free": 0.75, "total": 0.25}, **both)) == []
    [text] = said(table=law_table({"two_axis_free": 0.6, "total": 0.4}, **both))
    assert text.startswith("Only the total batch may count: the law that knows nothing else holds "
                           "0.40 of the weight")
    assert "averaged.csv" in text
    apart = {"total": 0.5, "power": 0.1, "two_axis": 0.4}
    [text] = structure_caution(get_law("total"), apart)
    assert text.startswith("Prompts and rollouts may count apart: laws of two axes hold 0.40 of")
    assert structure_caution(get_law("power"), {"power": 0.5, "total": 0.5}) == []


def test_scales_that_are_bounds_or_nothing():
    for status in ("upper_bound", "lower_bound", "not_identified"):
        [text] = said(main=cbs(scale_status=status))
        assert text.startswith("B_rollout not identified at 1 of 2 entries")


def test_runs_that_cannot_be_left_out_by_reweighting():
    [text] = said(table=law_table(two_axis_free=(-10.0, 2), total=(-20.0, 5)))
    assert text.startswith("2 run(s) carry so much weight")
    assert said(table=law_table(two_axis_free=(-10.0, 0), total=(-20.0, 5))) == []


def test_cautions_stand_together():
    texts = said(post=posterior(alpha_sd=0.2, sigma_run=0.3), main=cbs(scale_status="upper_bound"))
    assert len(texts) >= 3


def test_along_one_axis_the_exponent_is_taken_not_estimated():
    one = xr.Dataset(coords={"n_prompts": ("run", [32, 64, 128]),
                             "n_rollouts": ("run", [8, 8, 8])})
    both = one.assign_coords(n_rollouts=("run", [8, 8, 16]))
    assert "takes exponent 1" in _about_one_axis(get_law("total"), one)[0]
    assert _about_one_axis(get_law("total"), both) == []
    assert _about_one_axis(get_law("two_axis"), one) == []
