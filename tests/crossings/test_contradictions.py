"""What no law can follow: S that rises with the batch, and copies."""

from __future__ import annotations

import numpy as np
import pytest

from cbsbayes.crossings.contradictions import copied_curves, rising_steps
from cbsbayes.crossings.intervals import find_crossings
from cbsbayes.simulation.sweep import simulate_sweep
from cbsbayes.sweep.dataset import new_sweep


def table(steps, n_prompts, n_rollouts, threshold=(0.5,)):
    """Return crossings known to 1 % of S, shape (run, threshold)."""
    steps = np.atleast_2d(np.asarray(steps, dtype=float).T).T
    runs = {"run": [f"r{k}" for k in range(len(steps))], "n_prompts": n_prompts,
            "n_rollouts": n_rollouts}
    ds = new_sweep(runs, steps_lower=0.99 * steps, steps_upper=steps, threshold=threshold)
    return find_crossings(ds, threshold)


P = np.repeat([8, 16, 32, 64], 2)


def test_rising_steps_are_said():
    said = rising_steps(table(10.0 * P**0.5, P, [8] * 8))
    assert said is not None
    assert said.startswith("S rises with the batch: of 24 pairs of runs, the one with the larger "
                           "batch needed more updates in 24.")


@pytest.mark.parametrize("steps", [100 / P**0.5, np.full(8, 50.0),
                                   [52, 48, 50, 47, 51, 49, 53, 46]])
def test_falling_and_flat_steps_are_not(steps):
    assert rising_steps(table(steps, P, [8] * 8)) is None


def test_more_rollouts_of_fewer_prompts_are_no_larger_batch():
    """S may rise with the total batch where prompts are what counts."""
    prompts, rollouts = np.array([64, 48, 32, 24, 16, 12, 8, 6]), 2 ** np.arange(1, 9)
    assert (np.diff(prompts * rollouts) > 0).all()
    assert rising_steps(table(1000 / prompts, prompts, rollouts)) is None


def test_few_runs_prove_nothing():
    assert rising_steps(table([10, 20, 30], [8, 16, 32], [8] * 3)) is None
    assert rising_steps(table([10, 20], [8, 16], [8] * 2)) is None


def test_without_any_effect_it_is_seldom_said():
    rng = np.random.default_rng(0)
    known = table(np.ones((8, 3)), P, [8] * 8, (0.4, 0.5, 0.6))
    steps = [known["upper"] * rng.lognormal(3, 0.2, (8, 3)).cumsum(axis=1) for _ in range(400)]
    said = [rising_steps(known.assign(lower=0.99 * upper, upper=upper)) for upper in steps]
    assert np.mean([one is not None for one in said]) < 0.03


def test_copies_share_every_value():
    ds = simulate_sweep("p1", 2, random_seed=1)
    assert copied_curves(ds) == []
    ds["accuracy"][3] = ds["accuracy"][0].values
    assert copied_curves(ds) == [ds["run"].values[[0, 3]].tolist()]
    ds["accuracy"][:] = 0.5  # nothing learned anywhere
    assert copied_curves(ds) == []
