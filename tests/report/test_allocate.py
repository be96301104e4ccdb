"""A decision in words: the best split, targets, costs, the check, and what is not answered."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from fitted import changed

from cbsbayes.decisions.batches import middle_threshold
from cbsbayes.decisions.decision import Decision, decide
from cbsbayes.decisions.front import Target
from cbsbayes.decisions.splits import BatchChoice
from cbsbayes.report.allocate import allocate_notes, allocate_sentences, allocate_tables
from cbsbayes.report.facts import Facts
from cbsbayes.report.text import probability

LEVEL = 0.7


@pytest.fixture(scope="module")
def decision(fit):
    return decide(fit, batch=2048, target=Target("updates", 300.0), cost_ratio=2.0)


@pytest.fixture(scope="module")
def text(fit, decision):
    return " ".join(allocate_sentences(Facts(fit), decision))


def test_the_sentences_say_what_the_table_says(decision, fit, text):
    level = middle_threshold(fit)
    table = decision.at_threshold("splits").set_index("n_rollouts")
    best = table[table["chosen"]].iloc[0]
    assert (f"At 2,048 samples an update, {best['n_prompts']} prompts × {best.name} rollouts takes "
            f"the fewest updates to accuracy {level:g}") in text
    assert f"with probability {probability(best['p_best_inside'])}." in text
    assert not table.loc[8, "chosen"]  # compared with the group size of most runs
    assert (f"It beats 256 prompts × 8 rollouts with probability "
            f"{probability(table.loc[8, 'p_worse'])}") in text


def test_costs_and_targets_are_in_it(text):
    assert "The cheapest group size at a fixed number of samples is " in text
    assert "a prompt costing 2 rollouts" in text
    assert "At most 300 updates to accuracy" in text
    assert "population: the smallest batch that meets it is" in text
    assert "new run: " in text


def test_a_target_that_cannot_be_met(fit):
    hard = decide(fit, target=Target("updates", 1.0))
    lines = [line for line in allocate_sentences(Facts(fit), hard) if "At most 1 updates" in line]
    assert len(lines) == 2
    assert all("cannot be met along any line of the batches tried; the largest" in line
               for line in lines)


def test_every_table_has_its_cells(decision):
    tables = allocate_tables(decision)
    assert set(tables) == {"splits", "group_size", "targets", "front", "iso_batch"}
    for table in tables.values():
        assert table.rows
        assert all(len(row) == len(table.columns) for row in table.rows)
        assert not any("nan" in cell.text.lower() for row in table.rows for cell in row)


def test_extrapolation_is_named(fit):
    far = decide(fit, batch=2**20)
    assert (far.tables["splits"]["range"] == "extrapolated").all()
    assert "everything said about them is extrapolated" in " ".join(allocate_notes(Facts(fit), far))
    assert "all outside the range tried" in " ".join(allocate_sentences(Facts(fit), far))


def test_a_bound_is_a_reservation(fit):
    at = fit.cbs["quantity"] == "best_n_rollouts"
    status = fit.cbs["status"].where(~at, "upper_bound")
    bounded = changed(fit, table_cbs=fit.cbs.assign(status=status))
    notes = " ".join(allocate_notes(Facts(bounded), decide(bounded)))
    assert "only an upper bound on the best group size: probabilities there depend on" in notes


def check(verdict, n_rollouts, *, not_reached=0, seen=False):
    return {"threshold": LEVEL, "n_prompts": 64, "n_rollouts": n_rollouts, "verdict": verdict,
            "n_not_reached": not_reached, "n_runs": 2, "observed_lower": 300.0,
            "observed_upper": np.inf if not_reached else 320.0, "predicted_lower": 200.0,
            "predicted_upper": 250.0, "runs_seen": seen, "p_least": 1 / n_rollouts,
            "observed_least": False, "ci_prob": 0.9}


@pytest.fixture
def lines_of(fit):
    def lines_of(*rows):
        decision = Decision(BatchChoice(128, ""), LEVEL, {"iso_batch": pd.DataFrame(rows)})
        return allocate_sentences(Facts(fit), decision)

    return lines_of


class TestCheck:
    def test_agreement_and_what_is_expected_by_chance(self, lines_of):
        (line,) = lines_of(*(check("agree", g) for g in (2, 4, 8, 16) for _ in range(5)))
        assert line == ("The runs of 128 samples as predicted by a fit that left them out: 20 of "
                        "20 means of a split at a target agree (2.0 expected to disagree by "
                        "chance).")
        assert "this fit, which has seen them" in lines_of(check("agree", 2, seen=True))[0]

    def test_the_least_is_counted_with_what_was_expected(self, lines_of):
        rows = [check("agree", 2) | {"observed_least": True}, check("agree", 8),
                check("agree", 2) | {"threshold": 0.8},
                check("agree", 8) | {"threshold": 0.8, "observed_least": True}]
        assert lines_of(*rows)[1] == (
            "The predicted best split was observed fastest at 1 of 2 targets that all runs reached "
            "(1.0 expected from seed noise).")

    def test_disagreement_is_a_warning(self, lines_of):
        assert lines_of(check("agree", 2), check("slower", 8))[1:] == [
            "Warning: 64 prompts × 8 rollouts was slower than predicted at 0.7: 300–320 updates "
            "observed, 200–250 predicted."]

    def test_small_groups_that_never_reach_it_may_saturate(self, lines_of):
        lines = lines_of(check("slower", 2, not_reached=2), check("agree", 8))
        assert "> 300 updates observed" in lines[1]
        assert "may saturate at a lower accuracy" in lines[2]
        assert len(lines_of(check("agree", 2), check("slower", 8, not_reached=1))) == 2


def test_one_axis_has_a_front_and_says_why_no_splits(one_axis):
    decision, facts = decide(one_axis), Facts(one_axis)
    assert allocate_sentences(facts, decision) == []
    assert [name for name, table in allocate_tables(decision).items() if table] == ["front"]
    assert allocate_notes(facts, decision)[0].startswith(
        "No splits: the law total depends on the total batch alone")
