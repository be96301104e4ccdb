"""The step-time model on measured step times, where the public tables lie beside the checkout."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest

from cbsbayes.decisions.step_times import fit_step_times


@pytest.fixture(scope="module")
def pollux(root):
    spec = importlib.util.spec_from_file_location(
        "step_time_pollux", root / "benchmarks" / "step_time_pollux.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(public_data):
    where = public_data / "pollux_osdi21"
    if not where.is_dir():
        pytest.skip("the Pollux tables are not beside the checkout")
    return where


@pytest.mark.mcmc
@pytest.mark.parametrize("app", ["cifar10", "imagenet"])
def test_batch_sizes_left_out_are_predicted(pollux, folder, app):
    table = pollux.measured(folder, app)
    places = table["place"].drop_duplicates()[::18]
    found = pollux.summary(list(pollux.by_placement(table[table["place"].isin(places)])))
    assert found.loc["between", "median error"] < 0.06
    assert found.loc["between", "inside 90 %"] >= 0.85
    assert found.loc["beyond", "inside 90 %"] > 0.55


def test_one_gpu_is_a_floor_and_a_slope(pollux, folder):
    """At one GPU nothing is synchronised: the published table is linear in the batch."""
    rows = pollux.measured(folder, "imagenet").query("place == '1'")
    seconds = rows["step_time"].to_numpy()
    model = fit_step_times(seconds, pollux.fixed_terms(rows), ("t_0", "c_b"))
    predicted = np.median(model.typical(pollux.fixed_terms(rows)), axis=0)
    np.testing.assert_allclose(predicted, seconds, rtol=0.15)
    per_sample = float(model.draws["c_b"].median())
    assert per_sample == pytest.approx(np.diff(seconds)[-1] / np.diff(rows["local_bsz"])[-1],
                                       rel=0.1)
