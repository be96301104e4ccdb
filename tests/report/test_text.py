"""Text in plain English: digits, bounds, percentages, labels, sentences from templates."""

from __future__ import annotations

import math
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbsbayes.models.laws import LAWS, get_law
from cbsbayes.report.text import (
    at_text,
    batch_text,
    bound,
    count,
    estimate,
    formula,
    interval,
    number,
    parse_at,
    percent,
    place_text,
    plain,
    plus_minus,
    probability,
    quantity_label,
    section_text,
    short,
)

finite = st.floats(1e-3, 1e9)


def row(median, lower, upper, status=""):
    return {"median": median, "ci_lower": lower, "ci_upper": upper, "status": status}


def text_of(found):
    return str(found).replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize(("value", "lower", "upper", "text"), [
    (121.3, 98.4, 152.2, "120 (98–150)"),
    (73.2, 44.7, 119.9, "73 (45–120)"),
    (0.7123, 0.664, 0.771, "0.71 (0.66–0.77)"),
    (12.84, 11.02, 15.0, "13 (11–15)"),
    (12.84, 11.02, 13.9, "12.8 (11.0–13.9)"),
    (1_234_567.0, 1_000_000.0, 1_500_000.0, "1,200,000 (1,000,000–1,500,000)"),
    (95.0, 10.4, 1000.0, "95 (10–1,000)"),
    (30.0, -20.4, 84.1, "30 (−20 to 84)"),
    (5.0, 3.0, math.inf, "5.00 (3.00–∞)"),
    (5.0, math.nan, math.nan, "5"), (2.0, 2.0, 2.0, "2"),
    (math.nan, 9.0, math.nan, "≥ 9.00"), (math.nan, math.nan, 40.0, "≤ 40.0"),
    (math.inf, 9.0, math.inf, "≥ 9.00"), (math.inf, math.inf, math.inf, "never"),
    (math.nan, math.nan, math.nan, "None"),
])
def test_digits_follow_the_interval_and_an_open_side_makes_a_bound(value, lower, upper, text):
    assert text_of(estimate(row(value, lower, upper))) == text
    named = {"x": value, "x_lower": lower, "x_upper": upper}
    assert text_of(estimate(named, "x")) == text
    assert text_of(estimate({**named, "x_median": value, "x": "a label"}, "x")) == text


UP, DOWN = (partial(bound, upper=upper) for upper in (True, False))


@pytest.mark.parametrize(("write", "value", "text"), [
    *((number, value, text) for value, text in [
        (0, "0"), (0.7, "0.700"), (1234.5, "1,230"), (-0.5, "−0.500"), (math.nan, "—"),
        (math.inf, "∞"), (-math.inf, "−∞"), (4.4e-11, "< 0.0001"), (-2e-7, "> −0.0001"),
        (-0.04, "−0.0400")]),
    (partial(number, decimals=1), -0.001, "0.0"),  # rounded to nothing it has no sign
    *((short, value, text) for value, text in [
        (0.7, "0.7"), (0.65, "0.65"), (100.0, "100"), (182.44, "182.4"), (1200.0, "1,200")]),
    (count, 1_048_576, "1,048,576"), (count, 12.5, "12.5"),
    (DOWN, 512.0, "≥ 512"), (UP, 40.0, "≤ 40.0"), (UP, 511.6, "≤ 512"), (DOWN, 511.6, "≥ 511"),
    (DOWN, 1234.0, "≥ 1,230"), (UP, 1231.0, "≤ 1,240"), (UP, 0.0, "≤ 0"),
    (percent, 0.9, "90 %"), (percent, 0.005, "0.5 %"), (percent, 0, "0 %"),
    (percent, 79.59, "80-fold"),
    *((probability, p, text) for p, text in [  # none is printed as certain
        (0.0, "below 0.01"), (0.004, "below 0.01"), (0.006, "0.01"), (0.5, "0.50"),
        (0.994, "0.99"), (0.996, "above 0.99"), (1.0, "above 0.99"), (math.nan, "—")])])
def test_numbers_bounds_and_shares(write, value, text):
    assert text_of(write(value)) == text


@pytest.mark.parametrize(("status", "text"), [
    ("identified", "73 (45–120)"), ("lower_bound", "≥ 44.6"), ("upper_bound", "≤ 120"),
    ("not_identified", "not identified")])
def test_a_status_decides_what_is_printed(status, text):
    found = estimate(row(73.1, 44.66, 119.8, status))
    assert text_of(found) == text
    assert found.identified == (status == "identified")
    assert estimate(row(73.1, 44.6, math.inf, "upper_bound")).status == "not_identified"


def _back(text):
    return float(text.replace(",", "").replace("−", "-"))


@given(finite, finite)
def test_printed_intervals_stay_within_a_twentieth_of_themselves(a, b):
    lower, upper = sorted((a, b))
    ends = interval(lower, upper)
    low, high = map(_back, ends.split("–"))
    assert low == pytest.approx(lower, rel=0.051)
    assert high == pytest.approx(upper, rel=0.051)


@given(finite)
def test_a_printed_bound_never_claims_more_than_the_bound(value):
    upper, lower = bound(value, upper=True), bound(value, upper=False)
    slack = 1e-6 * value
    assert _back(upper.split("\N{NO-BREAK SPACE}")[1]) >= value - slack
    assert _back(lower.split("\N{NO-BREAK SPACE}")[1]) <= value + slack


def test_what_is_held_fixed_is_put_into_words():
    assert at_text("n_prompts=128,n_rollouts=8") == "128 prompts × 8 rollouts"
    assert at_text("n_rollouts=8,gain=0.1").replace("\N{NO-BREAK SPACE}", " ") == (
        "8 rollouts, saving 10 %")
    assert at_text("{x}={0.__class__}") == "{x} = {0.__class__}"
    assert at_text(np.nan) == at_text("") == ""
    assert parse_at(" n_prompts=4 ") == {"n_prompts": "4"}


def test_cells_of_any_kind_are_one_line_of_text():
    values = [None, np.nan, pd.NA, True, np.int64(1200), 0.7, "x\ny", np.bool_(False)]
    assert [plain(v) for v in values] == ["", "", "", "yes", "1,200", "0.7", r"x\ny", "no"]


def test_labels_and_formulas():
    assert quantity_label("cbs_prompts") == "Prompt CBS"
    assert quantity_label("other") == "other"
    gain = {"quantity": "gain_prompts", "at": "n_prompts=16,n_rollouts=8", "unit": "1"}
    assert place_text(gain) == "16 → 32 prompts at 8 rollouts"
    assert place_text({"quantity": "cbs_prompts", "at": "n_rollouts=8", "unit": "prompts"}) == (
        "8 rollouts; S = 2 S_min; prompts")
    assert batch_text({"n_prompts": 256, "n_rollouts": 4}) == "256 prompts × 4 rollouts"
    assert batch_text({"total_batch": 1024.0, "n_rollouts": np.nan}, units=False) == "1,024"
    assert plus_minus({"x": 0.2, "x_error": 0.013}, "x") == "0.20 ± 0.01"
    assert formula(get_law("two_axis_free")).endswith("(n_rollouts − 1))/n_prompts)^α")


def laws(**differences):
    rows = pd.DataFrame([{"law": law, "elpd_diff": d, "dse": e}
                         for law, (d, e) in differences.items()])
    facts = SimpleNamespace(fit=SimpleNamespace(law_table=rows))
    intro, said = section_text("laws", facts=facts)
    assert intro.startswith("The exponent ")
    return said


def test_laws_are_ranked_against_the_best():
    assert laws(total=(-41.4, 10.8), two_axis_free=(0.0, 0.0), two_axis_sqrt=(-1.1, 2.4)) == [
        "Left-out runs are predicted best by two_axis_free.",
        "two_axis_sqrt predicts as well, within two standard errors: elpd −1.1 ± 2.4.",
        "total predicts worse: elpd −41.4 ± 10.8."]
    assert laws(total=(0.0, 0.0)) == ["No other law was fitted to compare with."]
    assert laws(two_axis=(0.0, 0.0), power=(np.nan, np.nan))[1] == "power could not be compared."
    assert len(laws(**{name: (-float(k), 0.1) for k, name in enumerate(LAWS)})) == len(LAWS)


def test_least_squares_stands_beside_the_fit():
    scales = {"axis": "prompts", "at": "n_rollouts=8", "least_squares": None,
              "posterior": "60 (50–70)", "runs": {"least_squares": (2, 1), "posterior": (21, 0)}}
    facts = SimpleNamespace(target="accuracy 0.7", compared=scales,
                            fit=SimpleNamespace(law=LAWS["total"]))
    assert section_text("comparison", facts=facts)[1] == [
        "Noise scale at accuracy 0.7, along prompts at 8 rollouts: least squares could not be "
        "fitted (2 runs, 1 dropped); this fit 60 (50–70) (21 runs)."]
    facts.compared = None
    assert "share no noise scale" in section_text("comparison", facts=facts)[1][0]
    assert section_text("curves") == ("", [])
