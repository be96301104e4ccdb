"""What is read off a posterior: every number against the law itself, and what comes first."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from law_draws import posterior

from cbsbayes.models.laws import LAWS, get_law
from cbsbayes.posterior.quantities import design_of, quantities
from cbsbayes.posterior.surface import Surface
from cbsbayes.simulation.sweep import simulate_sweep


def batches(n_prompts, n_rollouts, total=None):
    total = np.asarray(total if total is not None
                       else np.multiply(n_prompts, n_rollouts), dtype=float)
    return xr.Dataset(coords={"n_prompts": ("run", np.asarray(n_prompts)),
                              "n_rollouts": ("run", np.asarray(n_rollouts)),
                              "total_batch": ("run", total)})


GRID = batches([16, 32, 64, 16, 16, 16, 32], [8, 8, 8, 2, 4, 16, 4])


def found(law, ds=GRID):
    """Return {(name, at): draws} and the order of names."""
    all_of_them = quantities(law, posterior(law), design_of(ds))
    return ({(q.name, q.at): q.draws for q in all_of_them},
            list(dict.fromkeys(q.name for q in all_of_them)))


@pytest.mark.parametrize("name", LAWS)
def test_gains_are_ratios_of_updates_inside_the_range_tried(name):
    law, post = get_law(name), posterior(get_law(name))
    values, _ = found(law)
    gains = [key for key in values if key[0].startswith("gain_")]
    expected = {"gain_prompts": [(16, 4), (16, 8), (32, 8)],
                "gain_rollouts": [(16, 2), (16, 4), (16, 8), (32, 4)]}
    assert sorted(gains) == sorted((which, f"n_prompts={p},n_rollouts={g}")
                                   for which, cells in expected.items() for p, g in cells)
    expected = np.exp(Surface(law, post).log_steps(32, 8) - Surface(law, post).log_steps(16, 8))
    xr.testing.assert_allclose(values["gain_prompts", "n_prompts=16,n_rollouts=8"], expected)
    expected = np.exp(Surface(law, post).log_steps(16, 4) - Surface(law, post).log_steps(16, 2))
    xr.testing.assert_allclose(values["gain_rollouts", "n_prompts=16,n_rollouts=2"], expected)
    assert all((values[key] < 1).all() for key in gains)


@pytest.mark.parametrize(("law", "ds", "names"), [
    ("two_axis_free", GRID, "gain_prompts gain_rollouts batch_at_gain cbs_prompts cbs_samples "
     "cbs_rollouts best_n_rollouts B_prompt B_rollout S_min alpha steps"),
    ("total", batches([-1] * 3, [-1] * 3, [10, 20, 40]),
     "gain_total batch_at_gain cbs_samples B_noise S_min E_min steps"),
    ("two_axis", batches([128] * 3, [4, 8, 16]),
     "gain_rollouts batch_at_gain cbs_rollouts B_prompt B_rollout S_min E_min steps"),
    ("two_axis", batches([32, 64, 128], [8] * 3),
     "gain_prompts batch_at_gain cbs_prompts cbs_samples B_prompt B_rollout S_min E_min steps")])
def test_what_leans_least_on_the_law_comes_first_and_one_axis_says_nothing_of_the_other(
        law, ds, names):
    assert found(get_law(law), ds)[1] == names.split()


def test_least_samples_exist_for_exponent_one_and_are_the_least():
    for name in LAWS:
        law, post = get_law(name), posterior(get_law(name))
        values, _ = found(law)
        assert (("E_min", "") in values) == (law.alpha == 1.0)
        if law.alpha != 1.0:
            continue
        draw = post.isel(chain=0, draw=2, threshold=1)
        one = not law.group_baseline or not law.two_axis  # the fewest rollouts are the best
        groups = xr.DataArray(np.ones(1) if one else np.geomspace(1.01, 1e4, 20000), dims="batch")
        samples = 1e-9 * groups * np.exp(Surface(law, draw).log_steps(1e-9, groups))
        expected = float(values["E_min", ""].isel(chain=0, draw=2, threshold=1))
        assert float(np.min(samples)) == pytest.approx(expected, rel=1e-4)


def test_best_group_size_beats_all_others_at_a_fixed_batch():
    law, post = get_law("two_axis_free"), posterior(get_law("two_axis_free"))
    draw = post.isel(chain=0, draw=0, threshold=0)
    values, _ = found(law)
    best = float(values["best_n_rollouts", ""].isel(chain=0, draw=0, threshold=0))

    def log_s(g):
        return float(Surface(law, draw).log_steps(2048 / g, g))

    assert all(log_s(best) < log_s(best * factor) for factor in (0.8, 0.95, 1.05, 1.25))
    assert ("best_n_rollouts", "") not in found(get_law("two_axis_free_plain"))[0]


def test_iso_batch_runs_state_critical_batches_at_the_middle_split():
    """No line along either axis: still S at every batch, and each CBS once."""
    values, order = found(get_law("two_axis"), batches([512, 256, 128, 64], [4, 8, 16, 32]))
    assert [at for name, at in values if name == "cbs_prompts"] == ["n_rollouts=16"]
    assert [at for name, at in values if name == "cbs_rollouts"] == ["n_prompts=256"]
    assert len([at for name, at in values if name == "steps"]) == 4
    assert "gain_prompts" not in order


def test_total_batches_are_written_without_loss():
    ds = batches([-1] * 4, [-1] * 4, [0.5, 1048576.0, 2097152.0, 12345678.0])
    values, _ = found(get_law("total"), ds)
    assert [at for name, at in values if name == "steps"] == [
        "total_batch=0.5", "total_batch=1048576", "total_batch=2097152", "total_batch=12345678"]
    assert [at for name, at in values if name == "gain_total"] == [
        "total_batch=0.5", "total_batch=1048576", "total_batch=2097152"]


def test_units():
    for law in LAWS.values():
        units = {(q.name, q.at): q.unit
                 for q in quantities(law, posterior(law), design_of(GRID))}
        assert units["S_min", ""] == "updates"
        assert units["gain_prompts", "n_prompts=16,n_rollouts=8"] == "1"
        assert units["cbs_prompts", "n_rollouts=8"] == "prompts"
        assert units["cbs_rollouts", "n_prompts=16"] == "rollouts"
        if law.two_axis:
            assert units["B_prompt", ""] == "prompts"
            assert units["B_rollout", ""] == ("prompts × rollouts" if not law.group_baseline
                                              else "prompts × (rollouts − 1)")
        else:
            assert units["B_noise", ""] == "samples"


def test_batches_of_a_sweep():
    tried = design_of(simulate_sweep("p1+p2b", seeds=2))
    assert tried.prompts_at == {8: (32, 64, 128, 256, 512, 1024)}
    assert tried.rollouts_at == {128: (1, 2, 4, 8, 16, 32, 64)}
    assert len(tried.batches) == 12
    one_axis = design_of(simulate_sweep("batch", seeds=1, law="total"))
    assert one_axis.one_axis
    assert one_axis.batches == ()
