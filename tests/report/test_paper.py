"""The paragraph for a paper: what it must name, from a fit and its tables alone."""

from __future__ import annotations

import pytest
from page_fixture import stand_in_fit
from test_report_latex import balanced

from cbsbayes.report.paper import paper_latex, paper_paragraph
from cbsbayes.report.words import main_threshold


@pytest.fixture
def paragraph(fit):
    return paper_paragraph(fit, fit.overhead)


def test_it_names_data_law_definitions_and_software(paragraph, fit):
    used = int(fit.runs["used"].sum())
    anchor = fit.overhead.loc[fit.overhead["at"] == "n_rollouts=8", "anchor"].dropna().iloc[0]
    for words in (f"{used} of {len(fit.runs)} simulated runs", "prompts per update",
                  "rollouts per prompt", "S = S_min (1 +", "1,319 validation items",
                  "at which S is twice its limit S_min", "Zhang et al. 2024",
                  f"smallest batch tried, {anchor:g} prompts", "McCandlish et al. (2018)",
                  "Doubling the batch still saves 10 % of the updates", "cbsbayes 0.1.0",
                  "4 chains of 200 draws", "credible intervals", "for a typical run",
                  f"At the threshold {main_threshold(fit):g} ("):
        assert words in paragraph, words
    assert "\n" not in paragraph


def test_its_numbers_are_those_of_the_tables(paragraph, fit):
    from cbsbayes.report.headline import find

    told = find(fit.cbs, "cbs_prompts", main_threshold(fit), "n_rollouts=8")
    assert told.identified
    assert f"is {told.value} prompts ({told.interval}) at 8 rollouts" in paragraph
    for threshold in fit.thresholds:
        assert f"{threshold:g}" in paragraph


def test_what_is_not_settled_is_a_bound_or_said_to_be_open(fit):
    cbs = fit.cbs.copy()
    cbs.loc[cbs["quantity"] == "cbs_prompts", ["status", "median", "ci_upper"]] = [
        "lower_bound", float("nan"), float("nan")]
    bound = stand_in_fit(cbs=cbs, runs=fit.runs, sweep=fit.sweep, settings=fit.settings,
                         thresholds=fit.thresholds, others={})
    text = paper_paragraph(bound)
    assert "is ≥" in text.replace("\N{NO-BREAK SPACE}", " ")
    cbs.loc[cbs["quantity"] == "cbs_prompts", "status"] = "not_identified"
    assert "is not identified by these batches" in paper_paragraph(bound)


def test_a_fit_that_is_not_trusted_says_so_first():
    fit = stand_in_fit(verdict={"trusted": False, "sentences": [], "checks_made": {}})
    assert paper_paragraph(fit).startswith("The fit did not pass its checks")


def test_one_axis_alone_has_its_own_words():
    from fitted import SETTINGS, quick_sampling

    from cbsbayes.posterior.fit_sweep import fit_sweep
    from cbsbayes.simulate import simulate_sweep

    with quick_sampling():
        rollouts = fit_sweep(simulate_sweep("p2b", 2, random_seed=1), sampler=SETTINGS,
                             beside=False)
        totals = fit_sweep(simulate_sweep("batch", 2, law="total", random_seed=1),
                           sampler=SETTINGS, beside=False)
    text = paper_paragraph(rollouts, rollouts.overhead)
    assert "The group size at which S is twice what unlimited rollouts would need" in text
    assert "Zhang" not in text  # the prompts were not varied
    text = paper_paragraph(totals, totals.overhead)
    assert "samples per update" in text
    assert "This is the form of McCandlish et al. (2018)." in text
    assert "smallest batch tried, 32 samples" in text


def test_latex_is_balanced_and_sets_the_law(fit):
    tex = paper_latex(fit, fit.overhead)
    assert balanced(tex)
    assert r"$S = S_{\min} (1 + (B_{\mathrm{prompt}}" in tex
    assert "arXiv:2410.21676" in tex
    assert "S_min" not in tex.replace(r"$S_{\min}$", "")
