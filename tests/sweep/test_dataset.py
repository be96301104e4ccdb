from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbsbayes.errors import CBSDataError
from cbsbayes.sweep.dataset import (
    append,
    choose_metric,
    digest,
    is_one_axis,
    new_sweep,
    notes_of,
    validate,
)
from cbsbayes.sweep.schema import ALWAYS


def curves(runs=("a", "b"), step=(0, 25, 50), metric=("gsm8k",), seed=0, table=None, **options):
    rng = np.random.default_rng(seed)
    accuracy = rng.random((len(runs), len(metric), len(step)))
    columns = {"run": list(runs), "n_prompts": [64] * len(runs), "n_rollouts": [8] * len(runs),
               **(table or {})}
    return new_sweep(columns, accuracy=accuracy, step=step, metric=list(metric), **options)


def crossings(**options):
    return new_sweep({"run": ["a", "b"], "total_batch": [32, 64]},
                     steps_lower=[[0, 10], [5, np.nan]], steps_upper=[[10, np.inf], [5, np.nan]],
                     threshold=[0.5, 0.6], **options)


def test_unknown_settings_take_the_defaults():
    ds = curves(table={"seed": [3, None], "model": ["m", None], "learning_rate": [1e-6, None]})
    assert ds["seed"].values.tolist() == [3, -1]
    assert ds["model"].values.tolist() == ["m", ""]
    assert ds["learning_rate"].values[0] == 1e-6
    assert np.isnan(ds["learning_rate"].values[1])
    assert ds["total_batch"].values.tolist() == [512.0, 512.0]
    assert ds["last_step"].values.tolist() == [50.0, 50.0]
    assert ds["n_items"].values.tolist() == [-1]
    assert ds.attrs["metric"] == "gsm8k"
    assert set(ALWAYS) <= set(ds.variables)
    assert {"n_prompts", "seed", "remark"} <= set(ALWAYS)
    assert not {"trainer", "n_gpus", "reward"} & set(ds.variables)


@pytest.mark.parametrize(("change", "message"), [
    (lambda ds: ds.drop_vars("accuracy"), "neither"),
    (lambda ds: ds.drop_vars("n_prompts"), "no 'n_prompts'"),
    (lambda ds: ds.assign_attrs(schema_version=2), "schema_version is 2"),
    (lambda ds: ds.assign_attrs(direction="up"), "direction is 'up'"),
    (lambda ds: ds.assign_attrs(extra={"a": 1}), "is {'a': 1}; netCDF"),
    (lambda ds: ds.assign_attrs(extra=True), "is True; netCDF"),
    (lambda ds: ds.assign_coords(run=("run", ["a", "a"], ds["run"].attrs)), "more than once"),
    (lambda ds: ds.assign_coords(run=("run", ["a", ""], ds["run"].attrs)), "not empty"),
    (lambda ds: ds.isel(step=[1, 0, 2]), "finite and sorted"),
    (lambda ds: ds.assign_coords(step=("step", ds["step"].values - 1, ds["step"].attrs)),
     "count from 0"),
    (lambda ds: ds.isel(run=[]), "empty along 'run'"),
    (lambda ds: ds.isel(step=[]), "empty along 'step'"),
    (lambda ds: ds.assign(accuracy=ds["accuracy"].transpose()), "dims"),
    (lambda ds: ds.assign(accuracy=ds["accuracy"].astype(int)), "type"),
    (lambda ds: ds.assign(odd=("run", [1.0, 2.0])), "no attribute"),
    (lambda ds: ds.assign({"a/b": ds["last_step"]}), "holds '/'"),
])
def test_a_broken_sweep_is_refused_with_one_line(change, message):
    with pytest.raises(CBSDataError, match=message) as caught:
        validate(change(curves()))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("table", "message"), [
    ({"n_prompts": [0, 64]}, "n_prompts = 0"),
    ({"n_prompts": [-8, 64]}, "n_prompts = -8|n_rollouts"),
    ({"n_prompts": [64, -1]}, "n_rollouts = 8"),
    ({"n_rollouts": [0, 8]}, "n_rollouts = 0"),
    ({"n_prompts": [64.5, 64]}, "whole numbers"),
    ({"n_prompts": ["many", 64]}, "no number"),
    ({"total_batch": [100, 512]}, "total_batch = 100"),
    ({"usable": [2, 1]}, "usable = 2"),
    ({"seed": [-2, 1]}, "seed = -2"),
    ({"updates_per_step": [0, 1]}, "updates_per_step = 0"),
])
def test_impossible_settings_are_refused(table, message):
    with pytest.raises(CBSDataError, match=message):
        curves(table=table)


@pytest.mark.parametrize(("runs", "accuracy", "message"), [
    ({"run": ["a"]}, [[[0.1]]], "total_batch"),
    ({"name": ["a"]}, [[[0.1]]], "column 'run'"),
    ({"run": ["a"], "total_batch": [8]}, [[[0.5, 0.6]]], "do not fit together"),
    ({"run": ["a"], "total_batch": [8]}, [[0.5]], "2 dimensions")])
def test_arrays_that_make_no_sweep_are_refused(runs, accuracy, message):
    with pytest.raises(CBSDataError, match=message):
        new_sweep(runs, accuracy=accuracy, step=[0], metric=["m"])


@pytest.mark.parametrize(("lower", "upper"), [
    (2.0, 1.0), (-1.0, 2.0), (np.nan, 2.0), (1.0, np.nan), (np.inf, np.inf), (0.0, 0.0)])
def test_impossible_crossings_are_refused(lower, upper):
    with pytest.raises(CBSDataError, match="steps_lower"):
        new_sweep({"run": ["a"], "total_batch": [8]}, steps_lower=[[lower]],
                  steps_upper=[[upper]], threshold=[0.5])


def test_one_axis_data_are_known_and_never_mixed():
    assert is_one_axis(crossings())
    assert not is_one_axis(curves())
    mixed = curves(table={"n_prompts": [64, -1], "n_rollouts": [8, -1], "total_batch": [512, 64]})
    with pytest.raises(CBSDataError, match="1 of 2 runs"):
        is_one_axis(mixed)


def test_metric_is_the_one_asked_for_the_default_or_the_only_one():
    several = curves(metric=("a", "b"), default_metric="b")
    assert choose_metric(several) == "b"
    assert choose_metric(several, "a") == "a"
    assert choose_metric(curves()) == "gsm8k"
    with pytest.raises(CBSDataError, match="choose one of: a, b"):
        choose_metric(curves(metric=("a", "b")))
    with pytest.raises(CBSDataError, match="no metric 'c'"):
        choose_metric(several, "c")


def evaluations(*sweeps):
    """Return every run, metric, step and accuracy, sorted."""
    return sorted((*place, value) for ds in sweeps
                  for place, value in ds["accuracy"].to_series().dropna().items())


def test_append_joins_on_the_union_of_steps_and_keeps_every_evaluation():
    one = curves(("a",), (0, 25), seed=1)
    two = curves(("b",), (0, 10), ("gsm8k", "math"), seed=2, n_items=[1319, 500],
                 noise={"grad_noise/x": np.ones((1, 2))}, train_step=[1, 2],
                 table={"signal_fraction": [0.5], "trainer": ["verl"]})
    both = append(one, two)
    assert both["step"].values.tolist() == [0.0, 10.0, 25.0]
    assert both["n_items"].to_series().to_dict() == {"gsm8k": 1319, "math": 500}
    assert evaluations(both) == evaluations(one, two)
    np.testing.assert_array_equal(both["noise_x"], [[np.nan] * 2, [1, 1]])
    np.testing.assert_array_equal(both["signal_fraction"], [np.nan, 0.5])
    assert both["trainer"].values.tolist() == ["", "verl"]
    validate(both)


@pytest.mark.parametrize(("one", "two", "message"), [
    (curves(), crossings(), "differ in kind: crossings, curves"),
    (curves(("a",)), curves(("b",), direction="decreasing"), "differ in direction"),
    (curves(("a",), n_items=[10]), curves(("b",), n_items=[20]), "10 items in one sweep and 20")])
def test_append_refuses_what_does_not_belong_together(one, two, message):
    with pytest.raises(CBSDataError, match=message):
        append(one, two)


def test_append_replaces_runs_and_says_so():
    old = curves(("a", "b"), seed=1, notes=["first"])
    new = curves(("b", "c"), (0, 30), seed=2, notes=["second"])
    ds = append(old, new)
    assert ds["run"].values.tolist() == ["a", "b", "c"]
    assert evaluations(ds) == evaluations(old.sel(run=["a"]), new)
    assert notes_of(ds) == ["first", "second", "Run b was replaced by newer data."]
    assert notes_of(append(ds, new)) == notes_of(ds)
    assert notes_of(append(new, new)) == ["second"]
    named = append(new, new.assign_coords(seed=("run", [1, -1], new["seed"].attrs)))
    assert notes_of(named) == ["second", "Run b was replaced by newer data."]


def test_digest_follows_content_and_nothing_else():
    ds = curves(table={"name": ["x", "y"]})
    same = ds.assign_attrs(history="another day", title="t", notes="[]").isel(run=[0, 1])
    same["name"] = same["name"].astype("<U50")
    assert digest(same[list(same.data_vars)[::-1]]) == digest(ds) == ds.attrs["digest"]
    other = ds.copy(deep=True)
    other["accuracy"][1, 0, 2] += 1e-12
    assert digest(other) != digest(ds)
    renamed = ds.assign_coords(name=("run", ["x", "z"], ds["name"].attrs))
    assert digest(renamed) != digest(ds)
    assert digest(ds.isel(run=[1, 0])) != digest(ds)


@settings(max_examples=6)
@given(st.permutations(["a", "b", "c", "d"]))
def test_the_order_of_appending_does_not_matter(order):
    one, two, three, four = (curves((run,), (0, 5 * (i + 1)), seed=i)
                             for i, run in enumerate(order))
    at_once = append(append(append(one, two), three), four)
    in_parts = append(append(one, two), append(three, four))
    assert in_parts.identical(at_once)
