"""The closed forms against root finding on the laws themselves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize_scalar

from cbsbayes.models.laws import get_law
from cbsbayes.models.laws_inverse import (
    best_rollouts,
    cbs_prompts,
    cbs_rollouts,
    cbs_total,
    prompts_at_gain,
    rollouts_at_gain,
    total_at_gain,
)

scale = st.floats(1e-2, 1e5)
exponent = st.floats(0.25, 1.5)
group = st.integers(2, 512)
prompt = st.integers(1, 8192)
form = st.sampled_from(["two_axis_free", "two_axis_free_plain"])
total_law = st.sampled_from(["total", "power"])


def root(f):
    """Return the positive root of a decreasing function, found on the log scale."""
    return float(np.exp(brentq(lambda x: f(np.exp(x)), -80.0, 80.0, xtol=1e-13, rtol=1e-13)))


def steps(name, scales, alpha):
    law = get_law(name)
    return lambda p, g: float(np.exp(law.log_ratio(p, g, scales, alpha)))


def two(name, b_p, b_r, alpha):
    return steps(name, {"B_prompt": b_p, "B_rollout": b_r}, alpha)


@given(total_law, scale, exponent)
def test_total_batch_where_updates_double(name, b, alpha):
    alpha = 1.0 if name == "total" else alpha
    s = steps(name, {"B_noise": b}, alpha)
    found = cbs_total(get_law(name), b, alpha)
    assert found == pytest.approx(root(lambda x: s(x, 1) - 2), rel=1e-9)


@given(form, group, scale, scale, exponent)
def test_prompts_where_updates_double(name, g, b_p, b_r, alpha):
    s = two(name, b_p, b_r, alpha)
    found = cbs_prompts(get_law(name), g, b_p, b_r, alpha)
    assert found == pytest.approx(root(lambda p: s(p, g) - 2), rel=1e-9)


@given(form, prompt, scale, scale, exponent)
def test_rollouts_where_updates_are_twice_their_limit(name, p, b_p, b_r, alpha):
    s, offset = two(name, b_p, b_r, alpha), 0.0 if name.endswith("plain") else 1.0
    limit = (1 + b_p / p) ** alpha
    found = cbs_rollouts(get_law(name), p, b_p, b_r, alpha)
    # the root in g = G - 1, where the law has its pole
    np.testing.assert_allclose(s(p, found) / limit, 2.0, rtol=1e-6)
    assert found > offset


@given(scale, scale, exponent)
def test_best_group_size_of_a_fixed_batch(b_p, b_r, alpha):
    s, total = two("two_axis_free", b_p, b_r, alpha), 4096.0
    best = minimize_scalar(lambda x: np.log(s(total / (1 + np.exp(x)), 1 + np.exp(x))),
                           bounds=(-20, 20), method="bounded", options={"xatol": 1e-9})
    assert best_rollouts(b_p, b_r) - 1 == pytest.approx(np.exp(best.x), rel=1e-2)


def test_best_group_size_against_every_split_of_a_batch():
    law, batch = get_law("two_axis_sqrt"), 3600
    splits = [(batch // g, g) for g in range(2, batch + 1) if batch % g == 0]
    for b_p, b_r in ((90.0, 500.0), (400.0, 300.0), (5.0, 9000.0)):
        log_s = [law.log_ratio(p, g, {"B_prompt": b_p, "B_rollout": b_r}) for p, g in splits]
        best = splits[int(np.argmin(log_s))][1]
        sizes = np.array([g for _, g in splits])
        around = sizes[np.argsort(np.abs(np.log((sizes - 1) / (best_rollouts(b_p, b_r) - 1))))[:2]]
        assert best in around


@given(total_law, st.sampled_from([0.05, 0.1, 0.2]), scale, exponent)
def test_total_batch_where_doubling_stops_paying(name, gain, b, alpha):
    alpha = 1.0 if name == "total" else alpha
    s = steps(name, {"B_noise": b}, alpha)
    found = total_at_gain(get_law(name), gain, b, alpha)
    if 1 - 2**-alpha <= gain:
        assert found == 0
    elif found > 1e-12 * b:  # beyond, rounding decides the root
        assert 1 - s(2 * found, 1) / s(found, 1) == pytest.approx(gain, rel=1e-6)


@given(form, st.sampled_from([0.05, 0.1, 0.25]), group, scale, scale, exponent)
def test_prompts_where_doubling_stops_paying(name, gain, g, b_p, b_r, alpha):
    s = two(name, b_p, b_r, alpha)
    found = prompts_at_gain(get_law(name), gain, g, b_p, b_r, alpha)
    if 1 - 2**-alpha <= gain:
        assert found == pytest.approx(0, abs=1e-9 * (b_p + b_r))
    else:
        assume(found > 1e-6 * b_p)
        assert 1 - s(2 * found, g) / s(found, g) == pytest.approx(gain, rel=1e-6)


@given(form, st.sampled_from([0.05, 0.1, 0.25]), prompt, scale, scale, exponent)
def test_rollouts_where_doubling_stops_paying(name, gain, p, b_p, b_r, alpha):
    s, law = two(name, b_p, b_r, alpha), get_law(name)
    found = rollouts_at_gain(law, gain, p, b_p, b_r, alpha)
    if law.plain and 1 - 2**-alpha <= gain:
        assert found == pytest.approx(0, abs=1e-9 * b_r)
        return
    assume(found > (1e-6 if law.plain else 1 + 1e-6))
    assert 1 - s(p, 2 * found) / s(p, found) == pytest.approx(gain, rel=1e-5)


def test_no_batch_is_small_enough_where_doubling_never_saves_that_much():
    draws = np.array([0.1, 0.5, 1.0])  # at exponent .1 doubling never saves 10 %
    found = total_at_gain(get_law("power"), 0.1, np.full(3, 900.0), draws)
    assert found[0] == 0
    assert (found[1:] > 0).all()
    assert prompts_at_gain(get_law("two_axis_free"), 0.25, 8, 90.0, 500.0, 0.4) == 0


def test_the_classical_case():
    law = get_law("two_axis")
    assert cbs_prompts(law, 8, 90.0, 490.0, 1.0) == pytest.approx(90 + 490 / 7)
    assert cbs_rollouts(law, 128, 90.0, 436.0, 1.0) == pytest.approx(1 + 436 / 218)
    assert cbs_total(get_law("total"), 700.0, 1.0) == 700.0
    assert best_rollouts(100.0, 900.0) == pytest.approx(4.0)
