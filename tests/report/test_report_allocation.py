"""The answer in words: probabilities, bounds and warnings as the tables have them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from fit_fixture import make_fit
from fitted import SETTINGS, quick_sampling

from cbsbayes.decisions.decision import Decision, decide, middle_threshold
from cbsbayes.decisions.group_size import Costs
from cbsbayes.decisions.targets import Target
from cbsbayes.errors import CBSDataError
from cbsbayes.posterior.fit_sweep import fit_sweep
from cbsbayes.report.allocation import allocation
from cbsbayes.report.allocation_words import check_sentences, target_sentences
from cbsbayes.report.numbers import probability
from cbsbayes.simulate import simulate_sweep


@pytest.fixture(scope="module")
def level(fit):
    return middle_threshold(fit)


@pytest.fixture(scope="module")
def decision(fit):
    return decide(fit, batch=2048, target=Target("updates", 300.0), costs=Costs(2.0, 1.0))


def words(told):
    return " ".join(told.sentences)


def test_the_sentence_says_what_the_table_says(decision, fit, level):
    table = decision.tables["splits"]
    best = table[(table["threshold"] == level) & table["chosen"]].iloc[0]
    said = words(allocation(decision, fit))
    assert (f"At 2,048 samples an update, {best['n_prompts']} prompts × {best['n_rollouts']} "
            "rollouts takes the fewest updates") in said
    assert f"with probability {probability(best['p_best_inside'])}. It beats" in said
    assert f"an accuracy of {level:g}" in said
    assert "A typical run is meant" in said


def test_it_compares_with_the_group_size_of_most_runs(decision, fit, level):
    table = decision.tables["splits"]
    here = table[table["threshold"] == level].set_index("n_rollouts")
    assert not here.loc[8, "chosen"]
    assert (f"It beats 256 prompts × 8 rollouts with probability "
            f"{probability(here.loc[8, 'p_worse'])}") in words(allocation(decision, fit))


def test_costs_and_targets_are_told(decision, fit):
    said = words(allocation(decision, fit))
    assert "The cheapest group size at a fixed number of samples is " in said
    assert "a prompt costing 2 rollouts" in said
    assert "At most 300 updates to an accuracy of" in said
    assert "typical run: the smallest batch that meets it is" in said
    assert "one new run" in said


def test_a_target_that_cannot_be_met(fit):
    hard = decide(fit, target=Target("updates", 1.0))
    first, second = target_sentences(hard, fit)
    assert "typical run: cannot be met along any line of the batches tried; the largest" in first
    assert "one new run: cannot be met" in second


def test_every_table_has_its_cells(decision, fit):
    told = allocation(decision, fit)
    assert len(told.tables) == 5
    for table in told.tables:
        assert table.rows
        assert all(len(row) == len(table.columns) for row in table.rows)
        assert not any("nan" in cell.text.lower() for row in table.rows for cell in row)


def test_extrapolation_is_said(fit):
    far = decide(fit, batch=2**20)
    assert (far.tables["splits"]["range"] == "extrapolated").all()
    assert any("everything said of them is extrapolated" in note for note in far.notes)
    assert "all outside the range tried" in words(allocation(far, fit))


def test_a_bound_is_a_reservation():
    bounded = make_fit()
    at = bounded.cbs["quantity"] == "best_n_rollouts"
    bounded.cbs = pd.concat([bounded.cbs[~at], bounded.cbs[at].assign(status="upper_bound")])
    bounded.prior = bounded.tree["prior"].to_dataset()
    notes = " ".join(decide(bounded).notes)
    assert "only an upper bound on the best group size: probabilities there lean on" in notes


def check(verdict, n_rollouts, *, not_reached=0, seen=False):
    row = {"threshold": 0.7, "n_prompts": 64, "n_rollouts": n_rollouts, "verdict": verdict,
           "n_not_reached": not_reached, "observed_lower": 300.0,
           "observed_upper": np.inf if not_reached else 320.0, "predicted_lower": 200.0,
           "predicted_upper": 250.0, "runs_seen": seen, "p_least": 1 / n_rollouts,
           "observed_least": False, "ci_prob": 0.9}
    return row


def said_of(*rows):
    return check_sentences(Decision(128, "", 0.7, {"iso_batch": pd.DataFrame(rows)}))


class TestCheck:
    def test_the_least_is_counted_with_what_was_due(self):
        rows = [check("agree", 2) | {"observed_least": True}, check("agree", 8),
                check("agree", 2) | {"threshold": 0.8},
                check("agree", 8) | {"threshold": 0.8, "observed_least": True}]
        assert said_of(*rows)[1].startswith(
            "The split of least observed S was the likeliest one at 1 of 2 thresholds at which all "
            "runs arrived; 1.0 were due")

    def test_agreement(self):
        (said,) = said_of(*(check("agree", g) for g in (2, 4, 8, 16) for _ in range(5)))
        assert said == ("The runs of 128 samples as predicted by a fit that left them out: 20 of "
                        "20 means of a split at a threshold agree (2 at most are due to disagree "
                        "by chance).")

    def test_runs_seen_are_said(self):
        assert "this fit, which has seen them" in said_of(check("agree", 2, seen=True))[0]

    def test_disagreement_is_a_warning(self):
        said = said_of(check("agree", 2), check("slower", 8))
        assert said[1:] == ["Warning: 64 prompts × 8 rollouts was slower than predicted at 0.7: "
                            "300–320 updates observed, 200–250 predicted."]

    def test_small_groups_that_never_arrive_may_saturate(self):
        said = said_of(check("slower", 2, not_reached=2), check("agree", 8))
        assert "more than 300 updates observed" in said[1]
        assert "may saturate at a lower ceiling" in said[2]
        assert len(said_of(check("agree", 2), check("slower", 8, not_reached=1))) == 2


def test_one_axis_has_a_front_and_says_why_no_splits():
    with quick_sampling():
        one_axis = fit_sweep(simulate_sweep("batch", 1, law="total"), sampler=SETTINGS)
    told = allocation(decide(one_axis), one_axis)
    assert told.sentences == []
    assert len(told.tables) == 1
    assert told.notes[0].startswith("No splits: the law total depends on the total batch alone")


def test_an_unknown_threshold_is_refused(fit):
    with pytest.raises(CBSDataError, match=r"0.99 was not fitted; fitted: .*--thresholds"):
        decide(fit, threshold=0.99)
