"""What a budget reaches: by hand, against the law and the draws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbsbayes.decisions.batches import COLUMNS, batches_run
from cbsbayes.decisions.budget import BUDGETS, budget_table, reached
from cbsbayes.decisions.decision import decide
from cbsbayes.decisions.step_times import step_times_of
from cbsbayes.decisions.time_to_target import Budget
from cbsbayes.report.allocate import allocate_sentences, asked_tables
from cbsbayes.report.facts import Facts

LEVEL = np.array([0.5, 0.7, 0.9])
STEPS = np.log(np.array([10.0, 20.0, 80.0]))[None, :, None]


@pytest.mark.parametrize(("updates", "level"), [
    (9.9, -np.inf), (10.0, 0.5), (20.0, 0.7), (40.0, 0.8), (79.9, 0.9), (80.0, np.inf)])
def test_by_hand(updates, level):
    found = reached(STEPS, LEVEL, np.log([updates]))
    np.testing.assert_allclose(found, [[level]], atol=1e-3)


@given(st.floats(0, 6), st.floats(0, 2), st.lists(st.floats(0, 3), min_size=2, max_size=2))
def test_more_updates_never_reach_less(updates, more, gaps):
    steps = np.cumsum([2.0, *gaps])[None, :, None]
    few, many = (reached(steps, LEVEL, np.array([u])).item() for u in (updates, updates + more))
    assert many >= few


def test_the_targets_are_reached_by_the_samples_that_they_take(fit):
    batch = p, g = tuple(batches_run(fit.crossings)[5])
    for threshold in fit.thresholds:
        samples = p * g * float(np.exp(fit.log_steps(p, g, threshold=threshold)).median())
        table = budget_table(fit, Budget(samples))
        assert list(table.columns) == COLUMNS["budget"]
        np.testing.assert_allclose(table["updates"] * table["total_batch"], table["budget"])
        asked = table[table["multiple"] == 1].set_index(["n_prompts", "n_rollouts"])
        assert asked["p_best"].sum() == pytest.approx(1.0)
        here = asked.loc[batch]
        assert here["accuracy"] == pytest.approx(threshold, abs=0.01)
        assert here["accuracy_lower"] <= threshold <= here["accuracy_upper"]
        ends = here[["accuracy_lower", "accuracy_upper"]].tolist()
        beyond = [end in (min(fit.thresholds), max(fit.thresholds)) for end in ends]
        assert not (here["accuracy_status"] == "identified" and any(beyond))


def test_a_large_budget_is_a_bound_and_prefers_large_batches(fit):
    table = budget_table(fit, Budget(1e9))
    assert set(table["accuracy_status"]) == {"lower_bound"}
    assert (table["accuracy"] == max(fit.thresholds)).all()
    best = table.loc[table.groupby("budget")["p_best"].idxmax()].set_index("budget")
    small = budget_table(fit, Budget(1.0))
    assert set(small["accuracy_status"]) == {"upper_bound"}
    assert (small["p_best"] == 0.0).all()
    assert best["total_batch"].is_monotonic_increasing


def test_hours_are_updates_of_the_step_times_and_money_is_hours(timed):
    table = budget_table(timed, Budget(None, 40.0, 80.0, 5.0, (8,), 2.0))
    seconds = step_times_of(timed).seconds_per_update(np.array([[64.0, 8.0]]))[:, 0]
    here = table.query("n_prompts == 64 and n_rollouts == 8 and multiple == 1")
    assert set(here["budget_unit"]) == {"GPU-hours", "price", "hours"}
    assert here["updates"].to_numpy() == pytest.approx(5 * 3600 / np.median(seconds), rel=1e-3)
    assert (here["updates_lower"] < here["updates"]).all()
    by_unit = table.set_index("budget_unit")["accuracy"]
    np.testing.assert_allclose(by_unit["price"], by_unit["hours"])


def test_every_batch_runs_at_the_rate_that_reaches_most(rate_fit):
    budget = 30_000.0 * 8
    table = budget_table(rate_fit, Budget(budget)).query("multiple == 1")
    low, high = (f(rate_fit.crossings["learning_rate"].values) for f in (np.min, np.max))
    known = table.dropna(subset="learning_rate")
    assert len(known)
    assert known["learning_rate"].between(low * 0.999, high * 1.001).all()
    level = np.sort(rate_fit.thresholds)
    for row in known.itertuples():
        def accuracy(rate, row=row):  # brute force: the level of every draw, one after the other
            steps = np.exp(rate_fit.log_steps(row.n_prompts, row.n_rollouts, learning_rate=rate))
            draws = steps.sel(threshold=level).transpose("sample", "threshold", "batch").values
            bound = [-np.inf, np.inf]
            found = [np.interp(np.log(row.updates), np.log(np.maximum.accumulate(s)), level,
                               *bound) for s in draws[..., 0]]
            return np.median(np.clip(found, *level[[0, -1]]))

        assert row.accuracy == pytest.approx(accuracy(row.learning_rate), abs=2e-3)
        assert all(row.accuracy >= accuracy(rate) - 2e-3 for rate in np.geomspace(low, high, 5))


def test_sentences_and_tables(fit):
    decision = decide(fit, batch=2048, budget=Budget(60_000), more_updates=0.05)
    text = " ".join(allocate_sentences(Facts(fit), decision))
    for words in ("With 60,000 samples ", "reaches the highest accuracy, ",
                  "The best group size is "):
        assert words in text
    assert f"A schedule up to {fit.thresholds[-1]:g}: " in text or "No ramp of batch sizes" in text
    tables = asked_tables(decision)
    assert 0 < len(tables["budget_samples"].rows) <= 12
    assert len(tables["budgets_samples"].rows) == len(BUDGETS)
    assert [c.label for c in tables["budgets_samples"].columns][-1].startswith("P(")
    assert len(tables["schedule"].rows) == len(decision.tables["schedule"])
