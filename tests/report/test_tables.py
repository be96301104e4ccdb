import numpy as np
import pandas as pd
import pytest
from page_fixture import THRESHOLDS, cbs_row, cbs_table, comparison_table, runs_table, stand_in_fit

from cbsbayes.errors import CBSDataError
from cbsbayes.report import headline, tables
from cbsbayes.report.estimates import (
    QUANTITIES,
    at_words,
    compared_estimate,
    estimate,
    parse_at,
    plain,
)

NBSP = "\N{NO-BREAK SPACE}"


@pytest.mark.parametrize(("status", "text"), [
    ("identified", "73 (45–120)"), ("lower_bound", f"≥{NBSP}44.6"),
    ("upper_bound", f"≤{NBSP}120"), ("not_identified", "not identified")])
def test_a_status_decides_what_is_printed(status, text):
    row = cbs_row(0.7, "B_prompt", "", 73.1, 0.3, status=status)
    assert str(estimate(row)) == text


def test_an_unidentified_scale_never_shows_its_median():
    for status in ("lower_bound", "upper_bound", "not_identified"):
        row = cbs_row(0.7, "B_prompt", "", 777.0, 0.3, status=status)
        assert "777" not in str(estimate(row))


def test_a_bound_without_a_finite_end_is_not_identified():
    row = cbs_row(0.7, "B_prompt", "", 73.1, 0.3, status="upper_bound") | {"ci_upper": np.inf}
    assert estimate(row).status == "not_identified"


def test_an_unknown_status_is_refused():
    with pytest.raises(CBSDataError, match=r"unknown status 'good'.*valid: identified"):
        estimate(cbs_row(0.7, "B_prompt", "", 73.1, 0.3, status="good"))


def test_what_is_held_fixed_is_put_into_words():
    assert at_words("n_prompts=128,n_rollouts=8") == "128 prompts × 8 rollouts"
    assert at_words("n_rollouts=8,gain=0.1") == "8 rollouts, saving 10 %"
    assert at_words("{x}={0.__class__}") == "{x} = {0.__class__}"
    assert at_words(np.nan) == at_words("") == ""
    assert parse_at(" n_prompts=4 ") == {"n_prompts": "4"}


def test_cells_of_any_kind_are_one_line_of_text():
    values = [None, np.nan, pd.NA, True, np.int64(1200), 0.7, "x\ny", np.bool_(False)]
    assert [plain(v) for v in values] == ["", "", "", "yes", "1,200", "0.7", r"x\ny", "no"]


def _texts(table):
    return [[cell.text for cell in row] for row in table.rows]


def test_the_main_table_starts_with_gains_and_ends_with_s_min():
    fit = stand_in_fit()
    table = headline.headline_table(fit.cbs, fit.thresholds, fit.runs, "caption")
    heads = [row[0] for row in _texts(table)]
    assert [c.label for c in table.columns] == ["quantity", "0.5", "0.6", "0.7", "0.8"]
    assert heads[0] == "Doubling the prompts"
    assert heads[-1] == "S_min"
    order = [heads.index(QUANTITIES[q][0]) for q in QUANTITIES if QUANTITIES[q][0] in heads]
    assert order == sorted(order)


def test_the_main_table_prints_bounds_as_bounds():
    fit = stand_in_fit()
    rows = {row[0].text: row for row in headline.headline_table(
        fit.cbs, fit.thresholds, fit.runs, "").rows}
    assert rows["B_rollout"][1].text == "not identified"
    assert rows["B_rollout"][1].mark == "not_identified"
    assert rows["B_prompt"][4].text.startswith("≥")
    assert rows["B_prompt"][4].below == ""


def test_a_quantity_read_off_at_many_batches_is_thinned_around_the_usual_one():
    runs, cbs = runs_table(), cbs_table()
    usual = headline.usual_batch(runs)
    assert usual == {"n_prompts": 16.0, "n_rollouts": 8.0, "total_batch": 512.0}
    ats = headline.chosen_ats(cbs, "gain_prompts", usual)
    assert len(ats) == 4
    assert ats[0] == "n_prompts=4,n_rollouts=8"
    assert "n_prompts=16,n_rollouts=8" in ats
    assert ats[-1] == "n_prompts=256,n_rollouts=8"
    assert headline.chosen_ats(cbs, "gain_prompts", usual, 1) == ["n_prompts=16,n_rollouts=8"]
    assert headline.chosen_ats(cbs, "cbs_prompts", usual, 1) == ["n_rollouts=8"]
    assert headline.chosen_ats(cbs, "best_n_rollouts", usual) == [""]
    assert headline.chosen_ats(cbs, "no_such", usual) == []


def test_a_quantity_keeps_to_the_usual_value_of_the_other_axis():
    rows = [cbs_row(0.5, "gain_prompts", f"n_prompts={p},n_rollouts={g}", 0.7, 0.1)
            for p in (4, 16) for g in (2, 8, 64)]
    ats = headline.chosen_ats(pd.DataFrame(rows), "gain_prompts", {"n_rollouts": 8.0})
    assert ats == ["n_prompts=4,n_rollouts=8", "n_prompts=16,n_rollouts=8"]


def test_of_two_batches_as_far_from_the_usual_one_the_first_goes():
    rows = [cbs_row(0.5, "cbs_prompts", f"n_rollouts={g}", 9.0, 0.1) for g in (2, 4, 8, 16, 32)]
    ats = headline.chosen_ats(pd.DataFrame(rows), "cbs_prompts", {"n_rollouts": 8.0}, 4)
    assert ats == [f"n_rollouts={g}" for g in (2, 8, 16, 32)]


def test_the_laws_stand_side_by_side():
    fit = stand_in_fit()
    table = headline.laws_table("two_axis_free", fit.cbs, fit.others, fit.thresholds, fit.runs, "")
    texts = _texts(table)
    assert texts[0] == ["Prompt CBS"]
    assert [row[0] for row in texts[1:4]] == ["two_axis_free", "two_axis", "two_axis_sqrt"]
    assert float(texts[2][3].replace(",", "")) > float(texts[1][3].replace(",", ""))
    assert "ours" in table.rows[1][0].mark


def test_the_comparison_marks_a_bound_of_the_fit_as_one():
    frame = comparison_table()
    easiest = (frame["method"] == "posterior") & (frame["axis"] == "rollouts") & (
        frame["threshold"] == 0.5)
    frame.loc[easiest, ["B_noise", "ci_lower"]] = np.nan
    table = tables.comparison_table(frame, "")
    texts = _texts(table)
    start = texts.index(["Rollouts"])
    assert table.rows[start][0].below == "at 16 prompts, in rollouts"
    assert texts[start + 1][0] == "0.5"
    assert texts[start + 1][-2].startswith("≤")
    assert texts[start + 2][-2] == "11"


def test_a_method_without_a_fit_leaves_a_dash():
    row = comparison_table().iloc[0].copy()
    row["B_noise"] = np.nan
    assert compared_estimate(row) is None
    row["B_noise"], row["ci_lower"] = 42.0, np.nan
    assert str(compared_estimate(row)) == "42.0 (no interval)"


def test_runs_left_out_come_with_their_reason_and_crossings_in_words():
    left = tables.runs_table(runs_table(), "", used=False)
    assert [c.label for c in left.columns][:2] == ["run", "reason"]
    assert "one rollout per prompt" in left.rows[0][1].text
    used = tables.runs_table(runs_table(), "", used=True)
    labels = [c.label for c in used.columns]
    assert labels[-4:] == ["S at 0.5", "S at 0.6", "S at 0.7", "S at 0.8"]
    assert not any(label.startswith(("lower_", "upper_")) for label in labels)
    assert used.rows[0][-1].text == "> 400"
    assert "–" in used.rows[0][-2].text
    assert len(used.rows) + len(left.rows) == len(runs_table())


def test_unknown_axes_are_left_empty_not_minus_one():
    runs = runs_table().assign(n_rollouts=-1, seed=-1)
    labels = [c.label for c in tables.runs_table(runs, "", used=True).columns]
    assert "n_rollouts" not in labels
    assert "seed" not in labels


def test_left_and_unusable_crossings():
    runs = runs_table().iloc[:1].assign(lower_0=0.0, upper_0=18.0, lower_9=np.nan, upper_9=np.nan)
    cells = tables.runs_table(runs, "", used=True).rows[0]
    assert [cells[-2].text, cells[-1].text] == ["≤ 18", "—"]


def test_the_full_table_has_every_row():
    table = tables.full_table(cbs_table(), "")
    assert len(table.rows) == len(cbs_table())
    assert table.rows[-1][6].text == "identified"


def test_diagnostics_are_the_worst_of_each_quantity():
    cbs = cbs_table()
    cbs.loc[cbs.index[-1], ["r_hat", "ess_bulk"]] = [1.2, 17.0]
    worst = tables.worst_rows(cbs)
    assert worst.loc["S_min"].tolist() == [1.2, 17.0, 1875.0]
    assert len(worst) == cbs["quantity"].nunique()


def test_nested_settings_get_dotted_names():
    table = tables.key_values({"a": {"b": [1, 20261121], "c": None}, "d": True}, "")
    assert _texts(table) == [["a.b", "1, 20261121"], ["a.c", ""], ["d", "yes"]]


def test_thresholds_are_found_by_closeness():
    assert headline.find(cbs_table(), "S_min", 0.1 + 0.2 + 0.3) is not None
    assert headline.find(cbs_table(), "S_min", 0.65) is None
    assert headline.find(cbs_table(), "alpha", THRESHOLDS[0]).value == "0.62"
