import numpy as np
import pandas as pd
from page_fixture import cbs_table, comparison_table, stand_in_fit

from cbsbayes.models.laws import get_law
from cbsbayes.report import words

NBSP = "\N{NO-BREAK SPACE}"


def test_the_question_names_the_group():
    assert "still pays for a/b, and" in words.question(stand_in_fit(group="a/b"))
    assert "these runs" in words.question(stand_in_fit(group="all runs"))


def test_the_answer_gives_gains_first_then_the_cbs_with_its_law():
    told = words.answer(stand_in_fit())
    parts = ["At a target accuracy of 0.7 on addition, doubling the prompts per update from 16 to "
             "32 at 8 rollouts per prompt multiplies the optimizer updates needed by 0.69 "
             f"(90{NBSP}% credible interval, equal-tailed: 0.64–0.74).",
             "Doubling the rollouts per prompt from 8 to 16 at 16 prompts per update",
             "at 8 rollouts is 73 prompts (45–120) under the law two_axis_free, S = S_min",
             "with α = 0.62 (0.48–0.81).",
             "α = 1, the form of McCandlish et al. (2018), the critical batch size is 150 prompts",
             "used 11 of 12 runs with 4–256 prompts per update and 2–32 rollouts per prompt",
             "the thresholds 0.5, 0.6, 0.7 and 0.8"]
    places = [told.find(part) for part in parts]
    assert -1 not in places, parts[places.index(-1)]
    assert places == sorted(places)


def _with_status(quantity, status):
    cbs = cbs_table()
    cbs.loc[cbs["quantity"] == quantity, "status"] = status
    return stand_in_fit(cbs=cbs)


def test_bounds_are_told_as_bounds():
    assert "is at most 120 prompts" in words.answer(_with_status("cbs_prompts", "upper_bound"))
    assert "is at least 44.6 prompts" in words.answer(_with_status("cbs_prompts", "lower_bound"))
    told = words.answer(_with_status("cbs_prompts", "not_identified"))
    assert "is not identified under the law" in told
    assert "73 prompts" not in told
    assert "by a factor not identified" in words.answer(_with_status("gain_prompts",
                                                                     "not_identified"))


def test_an_exponent_that_is_a_bound_is_told_as_one():
    bound = words.answer(_with_status("alpha", "lower_bound"))
    assert "with α ≥" in bound
    assert "with α not identified" in words.answer(_with_status("alpha", "not_identified"))


def test_an_untrusted_fit_says_so_before_the_numbers():
    fit = stand_in_fit(verdict={"trusted": False, "sentences": ["x"], "checks_made": {}})
    assert words.answer(fit).startswith("The fit did not pass its checks")
    assert words.verdict_title(fit) == "This fit is not to be trusted yet"


def test_one_axis_data_speak_of_samples():
    cbs = pd.DataFrame(cbs_table("total", 1.0)).query("quantity == 'S_min'")
    scale = cbs.assign(quantity="B_noise", unit="samples")
    gain = cbs.assign(quantity="gain_prompts", at="total_batch=64", median=0.7, ci_lower=0.65,
                      ci_upper=0.75)
    fit = stand_in_fit(cbs=pd.concat([gain, scale, cbs]), others={}, law=get_law("total"))
    fit.runs = fit.runs.assign(n_prompts=-1, n_rollouts=-1)
    told = words.answer(fit)
    assert "doubling the batch from 64 to 128 multiplies" in told
    assert "is 36 samples (30–43) under the law total" in told
    assert "This law has exponent α = 1" in told
    assert "32–2,048 samples per update" in told
    assert "-1" not in told


def test_no_scale_at_all_is_said():
    fit = stand_in_fit(cbs=cbs_table().query("quantity == 'S_min'"))
    assert words.headline(fit) == "No noise scale was estimated."


def test_each_threshold_gets_one_verdict_on_least_squares():
    told = words.comparison_sentences(stand_in_fit())
    assert len(told) == 4
    assert told[1].startswith("Threshold 0.6, prompts axis at 8 rollouts: least squares gives 36")
    assert "from 20 runs (1 dropped); this fit gives 72 (58–94) from 21 runs." in told[1]
    assert "lies outside the credible interval" in told[1]
    assert "log-space fit gives 65 (36–120)" in told[1]
    assert "2.4 times as wide" in told[1]


def test_a_bound_beside_least_squares_is_not_compared_by_width():
    table = comparison_table()
    table.loc[table["method"] == "posterior", ["B_noise", "ci_upper"]] = np.nan
    told = words.comparison_sentences(stand_in_fit(comparison=table))
    assert "do not settle the scale" in told[0]
    assert "times as wide" not in told[0]


def test_least_squares_that_failed_is_said():
    table = comparison_table()
    table.loc[table["method"] == "least_squares", ["B_noise", "ci_lower", "ci_upper"]] = np.nan
    assert "could not be fitted" in words.comparison_sentences(stand_in_fit(comparison=table))[0]


def test_a_log_fit_without_an_interval_is_not_compared_by_width():
    table = comparison_table()
    table.loc[table["method"] == "log_least_squares", ["ci_lower", "ci_upper"]] = np.nan
    told = words.comparison_sentences(stand_in_fit(comparison=table))[0]
    assert "times as wide" not in told
    assert "credible interval" in told


def test_how_many_runs_were_left_out():
    assert words.left_out_sentence(stand_in_fit()).startswith("1 of 12 runs was left out")
    fit = stand_in_fit()
    fit.runs = fit.runs.assign(used=True)
    assert words.left_out_sentence(fit) == "No run was left out."
