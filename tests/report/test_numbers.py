"""Numbers as text: digits, bounds, percentages, estimates."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbsbayes.errors import CBSDataError
from cbsbayes.report import numbers
from cbsbayes.report.numbers import (
    bound,
    compared_estimate,
    count,
    estimate_of,
    interval,
    number,
    percent,
    short,
)

finite = st.floats(1e-3, 1e9)


@pytest.mark.parametrize(("value", "lower", "upper", "text"), [
    (121.3, 98.4, 152.2, ("120", "98–150")),
    (73.2, 44.7, 119.9, ("73", "45–120")),
    (0.7123, 0.664, 0.771, ("0.71", "0.66–0.77")),
    (0.6893, 0.645, 0.736, ("0.69", "0.65–0.74")),
    (12.84, 11.02, 15.0, ("13", "11–15")),
    (12.84, 11.02, 13.9, ("12.8", "11.0–13.9")),
    (1234.0, 1040.0, 1441.0, ("1,200", "1,000–1,400")),
    (1_234_567.0, 1_000_000.0, 1_500_000.0, ("1,200,000", "1,000,000–1,500,000")),
    (95.0, 10.4, 1000.0, ("95", "10–1,000")),
    (30.0, -20.4, 84.1, ("30", "−20 to 84")),
    (5.0, 3.0, math.inf, ("5.00", "3.00–∞")),
    (5.0, math.nan, math.nan, ("5.00", "—")),
])
def test_digits_follow_the_interval(value, lower, upper, text):
    assert numbers.value_with_interval(value, lower, upper) == text


@pytest.mark.parametrize(("value", "text"), [
    (0, "0"), (0.7, "0.700"), (1234.5, "1,230"), (-0.5, "−0.500"), (math.nan, "—"),
    (math.inf, "∞"), (-math.inf, "−∞"), (4.4e-11, "< 0.0001"), (-2e-7, "> −0.0001"),
    (-0.04, "−0.0400"),
])
def test_plain_numbers(value, text):
    assert number(value) == text


def test_short_numbers_lose_only_empty_digits():
    assert [short(v) for v in (0.7, 0.65, 100.0, 182.44, 1200.0)] == [
        "0.7", "0.65", "100", "182.4", "1,200"]


def test_whole_numbers_are_written_in_full():
    assert count(1_048_576) == "1,048,576"
    assert count(12.5) == "12.5"


@pytest.mark.parametrize(("value", "upper", "text"), [
    (512.0, False, "≥ 512"), (40.0, True, "≤ 40.0"), (511.6, True, "≤ 512"),
    (511.6, False, "≥ 511"), (1234.0, False, "≥ 1,230"), (1231.0, True, "≤ 1,240"),
    (0.0, True, "≤ 0"),
])
def test_bounds_are_rounded_outwards(value, upper, text):
    assert bound(value, upper=upper).replace("\N{NO-BREAK SPACE}", " ") == text


def test_a_number_rounded_to_nothing_has_no_sign():
    assert number(-0.001, 1) == "0.0"


def test_percentages():
    assert [percent(p).replace("\N{NO-BREAK SPACE}", " ") for p in (0.9, 0.005, 0, 79.59)] == [
        "90 %", "0.5 %", "0 %", "80-fold"]


@pytest.mark.parametrize(("p", "text"), [
    (0.0, "below 0.01"), (0.004, "below 0.01"), (0.006, "0.01"), (0.5, "0.50"), (0.994, "0.99"),
    (0.996, "above 0.99"), (1.0, "above 0.99"), (math.nan, "—")])
def test_no_probability_is_printed_as_certain(p, text):
    assert numbers.probability(p) == text


@pytest.mark.parametrize(("status", "text"), [
    ("identified", "73 (45–120)"), ("lower_bound", "≥ 44.6"), ("upper_bound", "≤ 120"),
    ("not_identified", "not identified")])
def test_a_status_decides_what_is_printed(status, text):
    found = estimate_of(73.1, 44.66, 119.8, status)
    assert str(found).replace("\N{NO-BREAK SPACE}", " ") == text
    assert found.identified == (status == "identified")


def test_a_bound_without_a_finite_end_is_not_identified():
    assert estimate_of(73.1, 44.6, math.inf, "upper_bound").status == "not_identified"
    assert estimate_of(math.inf, math.inf, math.inf, "lower_bound").value == "never"


def test_an_unknown_status_is_refused():
    with pytest.raises(CBSDataError, match=r"unknown status 'good'.*valid: identified"):
        estimate_of(1.0, 0.5, 2.0, "good")


@pytest.mark.parametrize(("row", "text"), [
    (("posterior", 60.0, 50.0, 70.0), "60 (50–70)"),
    (("posterior", math.nan, math.nan, 40.0), "≤ 40.0"),
    (("posterior", math.nan, 9.0, math.nan), "≥ 9.00"),
    (("posterior", math.nan, math.nan, math.nan), "not identified"),
    (("least_squares", 42.0, math.nan, 60.0), "42.0 (no interval)"),
    (("least_squares", math.nan, 1.0, 2.0), "None")])
def test_a_scale_of_the_comparison(row, text):
    found = compared_estimate(dict(zip(("method", "B_noise", "ci_lower", "ci_upper"), row,
                                       strict=True)))
    assert str(found).replace("\N{NO-BREAK SPACE}", " ") == text


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
