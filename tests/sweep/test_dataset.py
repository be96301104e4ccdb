from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from cbsbayes.errors import CBSDataError
from cbsbayes.sweep.dataset import (
    append,
    choose_metric,
    digest,
    is_one_axis,
    long_table,
    merge,
    new_sweep,
    notes_of,
    validate,
)
from cbsbayes.sweep.groups import group_of
from cbsbayes.sweep.schema import RUN_COORDS


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
    assert set(RUN_COORDS) - {"trainer", "trainer_version", "n_gpus", "read_from"} <= set(ds.coords)


def broken(change):
    ds = curves()
    return change(ds)


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
        validate(broken(change))
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


def test_runs_without_a_batch_are_refused():
    with pytest.raises(CBSDataError, match="total_batch"):
        new_sweep({"run": ["a"]}, accuracy=[[[0.1]]], step=[0], metric=["m"])
    with pytest.raises(CBSDataError, match="column 'run'"):
        new_sweep({"name": ["a"]}, accuracy=[[[0.1]]], step=[0], metric=["m"])


def test_arrays_of_different_lengths_are_refused():
    with pytest.raises(CBSDataError, match="do not fit together"):
        new_sweep({"run": ["a"], "total_batch": [8]}, accuracy=[[[0.5, 0.6]]], step=[0],
                  metric=["m"])
    with pytest.raises(CBSDataError, match="2 dimensions"):
        new_sweep({"run": ["a"], "total_batch": [8]}, accuracy=[[0.5]], step=[0], metric=["m"])


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


def test_groups_differ_where_settings_do():
    ds = curves(table={"model": ["m", "m"], "dataset": ["gsm8k", ""], "algorithm": ["grpo", ""],
                       "learning_rate": [1e-6, np.nan], "ppo_epochs": [1, 2]})
    assert group_of(ds).values.tolist() == ["m · gsm8k · grpo · lr 1e-06", "m · 2 epochs"]
    assert set(group_of(curves()).values.tolist()) == {"all runs"}


def test_metric_is_the_one_asked_for_the_default_or_the_only_one():
    several = curves(metric=("a", "b"), default_metric="b")
    assert choose_metric(several) == "b"
    assert choose_metric(several, "a") == "a"
    assert choose_metric(curves()) == "gsm8k"
    with pytest.raises(CBSDataError, match="choose one of: a, b"):
        choose_metric(curves(metric=("a", "b")))
    with pytest.raises(CBSDataError, match="no metric 'c'"):
        choose_metric(several, "c")


def test_long_table_has_one_row_per_evaluation():
    accuracy = [[[0.1, np.nan, 0.3]], [[0.2, 0.4, np.nan]]]
    ds = new_sweep({"run": ["a", "b"], "n_prompts": [4, 8], "n_rollouts": [2, 2],
                    "updates_per_step": [1, 5]}, accuracy=accuracy, step=[0, 5, 10],
                   metric=["m"], n_items=[100])
    table = long_table(ds)
    assert table[["run", "step", "accuracy"]].to_numpy().tolist() == [
        ["a", 0.0, 0.1], ["a", 10.0, 0.3], ["b", 0.0, 0.2], ["b", 5.0, 0.4]]
    assert table["trainer_step"].tolist() == [0.0, 10.0, 0.0, 1.0]
    assert table["samples"].tolist() == [0.0, 80.0, 0.0, 80.0]
    assert (table["n_items"] == 100).all()
    assert long_table(crossings()).empty
    assert list(long_table(crossings())) == list(table)


def test_merge_joins_on_the_union_of_steps_and_keeps_every_evaluation():
    one = curves(("a",), (0, 25), seed=1)
    two = curves(("b",), (0, 10), ("gsm8k", "math"), seed=2, n_items=[1319, 500])
    both = merge([one, two])
    assert both["step"].values.tolist() == [0.0, 10.0, 25.0]
    assert dict(zip(both["metric"].values.tolist(), both["n_items"].values.tolist(),
                    strict=True)) == {"gsm8k": 1319, "math": 500}
    table = pd.concat([long_table(one), long_table(two)])
    keys = ["run", "metric", "step", "accuracy"]
    assert sorted(long_table(both)[keys].to_numpy().tolist()) == sorted(
        table[keys].to_numpy().tolist())
    validate(both)


def test_merge_keeps_equal_runs_once_and_refuses_different_ones():
    one, two = curves(("a",), seed=1), curves(("a", "b"), (0, 25, 50, 75), seed=2)
    joined = merge([one, curves(("b",), (0, 7), seed=3)])
    assert merge([joined, one]).identical(joined)
    with pytest.raises(CBSDataError, match="run 'a' is in two sweeps"):
        merge([one, two])
    with pytest.raises(CBSDataError, match="no sweep to merge"):
        merge([])


def test_merge_refuses_what_does_not_belong_together():
    with pytest.raises(CBSDataError, match="differ in kind: crossings, curves"):
        merge([curves(), crossings()])
    with pytest.raises(CBSDataError, match="differ in direction"):
        merge([curves(("a",)), curves(("b",), direction="decreasing")])
    with pytest.raises(CBSDataError, match="10 items in one sweep and 20"):
        merge([curves(("a",), n_items=[10]), curves(("b",), n_items=[20])])


def test_merge_fills_series_that_only_some_runs_have():
    one = curves(("a",), noise={"grad_noise/x": np.ones((1, 2))}, train_step=[1, 2],
                 table={"signal_fraction": [0.5]})
    both = merge([curves(("b",)), one])
    assert both["noise_x"].sel(run="a").values.tolist() == [1.0, 1.0]
    assert np.isnan(both["noise_x"].sel(run="b")).all()
    assert both["signal_fraction"].sel(run="a").item() == 0.5


def test_append_replaces_runs_and_says_so():
    old = curves(("a", "b"), seed=1, notes=["first"])
    new = curves(("b", "c"), seed=2, notes=["second"])
    ds = append(old, new)
    assert sorted(ds["run"].values.tolist()) == ["a", "b", "c"]
    np.testing.assert_array_equal(ds["accuracy"].sel(run="b"), new["accuracy"].sel(run="b"))
    np.testing.assert_array_equal(ds["accuracy"].sel(run="a"), old["accuracy"].sel(run="a"))
    assert notes_of(ds) == ["first", "second", "Run b was replaced by newer data."]
    again = append(ds, new)
    assert notes_of(again) == notes_of(ds)
    assert notes_of(append(new, new)) == ["second"]


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


@settings(max_examples=25)
@given(st.permutations(["a", "b", "c", "d"]), st.integers(1, 3))
def test_merging_in_parts_is_merging_at_once(order, cut):
    parts = {run: curves((run,), (0, 5 * (i + 1)), seed=i) for i, run in enumerate("abcd")}
    sweeps = [parts[run] for run in order]
    at_once = merge(sweeps)
    in_parts = merge([merge(sweeps[:cut]), merge(sweeps[cut:])])
    assert isinstance(at_once, xr.Dataset)
    assert in_parts.identical(at_once.assign_attrs(history=in_parts.attrs["history"]))
