import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbsbayes.report import numbers
from cbsbayes.report.numbers import bound, count, interval, number, percent, short

finite = st.floats(1e-6, 1e9)


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
    (math.inf, "∞"), (-math.inf, "−∞"), (1.234e13, "1.23 × 10¹³"), (2e-7, "2.00 × 10⁻⁷"),
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


def test_percentages():
    assert [percent(p).replace("\N{NO-BREAK SPACE}", " ") for p in (0.9, 0.005, 0)] == [
        "90 %", "0.5 %", "0 %"]


def test_a_width_must_be_positive():
    with pytest.raises(ValueError, match="positive and finite, got 0"):
        numbers.decimals_for(0.0)


def _back(text):
    return float(text.replace(",", "").replace("−", "-"))


@given(finite, finite)
def test_printed_intervals_stay_within_a_twentieth_of_themselves(a, b):
    lower, upper = sorted((a, b))
    ends = interval(lower, upper)
    if "×" in ends:  # powers of ten are covered above
        return
    low, high = map(_back, ends.split("–"))
    assert low == pytest.approx(lower, rel=0.051)
    assert high == pytest.approx(upper, rel=0.051)


@given(finite)
def test_a_printed_bound_never_claims_more_than_the_bound(value):
    upper, lower = bound(value, upper=True), bound(value, upper=False)
    if "×" in upper or "×" in lower:
        return
    slack = 1e-6 * value
    assert _back(upper.split("\N{NO-BREAK SPACE}")[1]) >= value - slack
    assert _back(lower.split("\N{NO-BREAK SPACE}")[1]) <= value + slack
