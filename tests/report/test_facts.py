"""What is chosen once: the target, the batch, the rows, the advice."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from fitted import changed, timed_fit

from cbsbayes.decisions.batches import find_row, middle_threshold
from cbsbayes.errors import CBSDataError
from cbsbayes.report.facts import Facts
from cbsbayes.report.tables import chosen, usual_batch
from cbsbayes.report.text import paragraph, sentences


def table(quantity, ats):
    return pd.DataFrame([{"quantity": quantity, "at": at} for at in ats])


def test_one_target_and_one_batch(fit, facts):
    assert facts.threshold == middle_threshold(fit)
    assert facts.batch == usual_batch(fit.runs)
    assert facts.target == f"accuracy {facts.threshold:g} on simulated/accuracy"
    assert facts.ci_prob == 0.9
    hardest = float(fit.thresholds[-1])
    assert Facts(fit, hardest).threshold == hardest
    with pytest.raises(CBSDataError, match=r"threshold 0\.123 was not fitted"):
        Facts(fit, 0.123)


def test_a_fit_without_quantities_is_refused(fit):
    with pytest.raises(CBSDataError, match="no quantities"):
        Facts(changed(fit, table_cbs=fit.cbs.iloc[:0]))


def test_the_usual_batch_of_a_whole_grid_is_in_its_middle():
    cells = [(p, g) for p in (4, 8, 16, 32, 64) for g in (4, 16)]
    runs = pd.DataFrame(cells, columns=["n_prompts", "n_rollouts"]).assign(used=True)
    runs["total_batch"] = runs["n_prompts"] * runs["n_rollouts"]
    assert usual_batch(runs) == {"n_prompts": 16, "n_rollouts": 4, "total_batch": 128}


def test_gains_are_at_the_usual_batch_and_say_what_is_saved(fit, facts):
    prompts, rollouts = facts.gains
    held = f"at {facts.batch['n_rollouts']:g} rollouts"
    assert prompts.doubled.endswith(held)
    row = find_row(fit.cbs, "gain_prompts", facts.threshold, prompts.at)
    assert float(prompts.saved.value) == pytest.approx(100 * (1 - row["median"]), abs=0.5)
    assert rollouts.quantity == "gain_rollouts"


def test_the_critical_batch_and_its_alternatives(facts):
    assert facts.critical.quantity == "cbs_prompts"
    assert facts.critical.place == f"{facts.batch['n_rollouts']:g} rollouts"
    assert facts.exponent_one.quantity == "cbs_prompts"
    assert facts.exponent_one.estimate != facts.critical.estimate
    assert facts.alpha.estimate.identified
    assert set(facts.definitions["at"]) == {facts.critical.at}
    assert {"linear_20", "doubling_10"} <= facts.definition.keys()


def test_without_step_times_the_best_split_is_advised(facts):
    assert isinstance(facts.times, str)
    splits = facts.decision.tables["splits"]
    best = splits[splits["chosen"]].iloc[0]
    assert facts.advice.batch == f"{best['n_prompts']:,} prompts × {best['n_rollouts']:,} rollouts"
    assert " updates (" in facts.advice.amount
    card = sentences("card", facts=facts)
    assert card[0].startswith(f"Run {facts.advice.batch}: {facts.advice.amount}, ")
    assert card[1].startswith("Next best ")


def test_a_budget_bounds_the_samples_of_the_batch_advised(fit, facts):
    bounded = Facts(fit, budget=0.999 * facts.decision.tables["front"]["samples"].median())
    front = bounded.candidates
    assert front.loc[front["steps"].idxmin(), "samples"] > bounded.budget
    assert float(bounded.advice.samples.replace(",", "")) <= 1.01 * bounded.budget
    nothing = Facts(fit, budget=1.0)
    assert nothing.advice is None
    assert "No batch tried takes at most 1 samples; the least is" in paragraph(
        "card_note", facts=nothing)
    assert "Target: the middle one of those fitted (--target); budget: none" in paragraph(
        "card_note", facts=facts)
    with pytest.raises(CBSDataError, match="the budget is 0 samples; valid: a positive number"):
        Facts(fit, budget=0.0)


def test_with_step_times_the_fastest_batch_is_advised():
    facts = Facts(timed_fit("p1"))
    times = facts.times.tables["times"]
    here = times[np.isclose(times["threshold"], facts.threshold) & times["gpus_measured"]
                 & (times["range"] != "extrapolated") & (times["applies_to"] == "population")]
    fastest = here.loc[here["hours"].idxmin()]
    assert facts.advice.batch.startswith(f"{fastest['n_prompts']:.0f} prompts × ")
    assert facts.advice.amount.split(" ")[1] in ("s", "min", "h")
    assert facts.advice.next_more >= 0


def test_of_many_batches_those_nearest_to_the_usual_one_are_kept():
    gains = table("gain_prompts", [f"n_prompts={p},n_rollouts={g}" for g in (2, 8)
                                   for p in (4, 8, 16, 32, 64, 128, 256)])
    usual = {"n_prompts": 16.0, "n_rollouts": 8.0}
    assert chosen(gains, "gain_prompts", usual)["at"].tolist() == [
        f"n_prompts={p},n_rollouts=8" for p in (4, 8, 16, 32)]
    assert chosen(gains, "gain_prompts", usual, 1)["at"].tolist() == ["n_prompts=16,n_rollouts=8"]
    assert len(chosen(table("best_n_rollouts", [""]), "best_n_rollouts", usual)) == 1
    assert chosen(gains, "no_such", usual).empty
