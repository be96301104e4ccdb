"""What a budget reaches: by hand, against the law itself, and past the last target."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbsbayes.decisions.batches import COLUMNS, batches_run
from cbsbayes.decisions.budget import BUDGETS, budget_table, reached
from cbsbayes.decisions.decision import decide
from cbsbayes.errors import CBSDataError
from cbsbayes.report.allocate import allocate_sentences, allocate_tables
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
        table = budget_table(fit, samples)
        assert list(table.columns) == COLUMNS["budget"]
        np.testing.assert_allclose(table["updates"] * table["total_batch"], table["samples"])
        asked = table[np.isclose(table["samples"], samples)].set_index(["n_prompts", "n_rollouts"])
        assert asked["p_best"].sum() == pytest.approx(1.0)
        here = asked.loc[batch]
        assert here["accuracy"] == pytest.approx(threshold, abs=0.01)
        assert here["accuracy_lower"] <= threshold <= here["accuracy_upper"]
        ends = here[["accuracy_lower", "accuracy_upper"]].tolist()
        beyond = [end in (min(fit.thresholds), max(fit.thresholds)) for end in ends]
        assert not (here["accuracy_status"] == "identified" and any(beyond))


def test_a_large_budget_is_a_bound_and_prefers_large_batches(fit):
    table = budget_table(fit, 1e9)
    assert set(table["accuracy_status"]) == {"lower_bound"}
    assert (table["accuracy"] == max(fit.thresholds)).all()
    best = table.loc[table.groupby("samples")["p_best"].idxmax()].set_index("samples")
    small = budget_table(fit, 1.0)
    assert set(small["accuracy_status"]) == {"upper_bound"}
    assert (small["p_best"] == 0.0).all()
    assert best["total_batch"].is_monotonic_increasing
    with pytest.raises(CBSDataError, match="--samples is 0"):
        budget_table(fit, 0.0)


def test_sentences_and_table_of_a_budget(fit):
    decision = decide(fit, samples=60_000)
    text = " ".join(allocate_sentences(Facts(fit), decision))
    assert "With 60,000 samples " in text
    assert "reaches the highest accuracy, " in text
    assert text.count("With ") >= len(BUDGETS)
    assert 0 < len(allocate_tables(decision)["budget"].rows) <= 12
