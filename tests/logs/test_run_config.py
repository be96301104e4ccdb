"""Configurations in every shape that loggers keep them in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbsbayes.logs.run_config import config_key, dataset_label, lookup, model_label

KEYS = st.sampled_from(["a", "b", "c", "data", "optim"])
TREES = st.recursive(st.integers(), lambda inner: st.dictionaries(KEYS, inner, min_size=1))


def flatten(tree, separator, prefix=""):
    if not isinstance(tree, dict):
        return {prefix: tree}
    flat = {}
    for key, value in tree.items():
        flat |= flatten(value, separator, f"{prefix}{separator}{key}" if prefix else key)
    return flat


@given(st.dictionaries(KEYS, TREES, min_size=1))
def test_every_shape_gives_the_same_values(tree):
    for path, value in flatten(tree, ".").items():
        assert lookup(tree, path) == value
        assert lookup(flatten(tree, "."), path) == value
        assert lookup(flatten(tree, "/"), path) == value
    assert config_key(tree) == config_key(flatten(tree, "."))
    assert config_key(tree) == config_key(flatten(tree, "/"))


@pytest.mark.parametrize(("value", "resolved"), [
    ("${a.n}", 8), ("${a.again}", 8), ("${oc.select:a.n,1}", 8),
    ("${oc.select:a.gone,1.5e-6}", 1.5e-6), ("${oc.select:a.gone,null}", None),
    ("${oc.select:a.gone}", None), ("$5", "$5"),
    *((text, text) for text in ("${a.gone}", "${.n}", "${oc.env:HOME}", "${b}", "lr${a.n}",
                                "${a.n}${a.n}", "${oc.select:a.gone,${a.n}}")),
])
def test_plain_references_are_followed(value, resolved):
    assert lookup({"a": {"n": 8, "again": "${oc.select:a.n,2}"}, "b": value}, "b") == resolved


@pytest.mark.parametrize(("path", "label"), [
    ("allenai/OLMo-2-0425-1B-SFT", "OLMo-2-0425-1B-SFT"),
    ("/models/Qwen2.5-1.5B/", "Qwen2.5-1.5B"),
    ("~/.cache/hub/models--allenai--OLMo-2/snapshots/" + "0a" * 20, "OLMo-2"),
    ("out/olmo1b/global_step_400/actor/huggingface", "olmo1b"),
    ("", None), (None, None), (3, None), ("${oc.env:MODEL}", None),
])
def test_model_label(path, label):
    assert model_label(path) == label


@pytest.mark.parametrize(("files", "label"), [
    ("~/data/gsm8k/train.parquet", "gsm8k"), ("omi.parquet", "omi"),
    ("data/openmath/train-00000-of-00010.parquet", "openmath"),
    (["d/math/train.parquet", "d/gsm8k/train.parquet"], "gsm8k+math"),
    ("['d/math/train.parquet', 'd/gsm8k/train.parquet']", "gsm8k+math"),
    ("train.parquet", "train"), ([], None), (None, None), ("", None), (7, None),
])
def test_dataset_label(files, label):
    assert dataset_label(files) == label


def test_what_a_restart_may_change_does_not_count():
    config = {"data": {"seed": 1}, "trainer": {"resume_mode": "auto", "n_gpus_per_node": 8,
                                               "total_epochs": 1}}
    again = {"data": {"seed": 1}, "trainer": {"resume_mode": "disable", "n_gpus_per_node": 4,
                                              "total_epochs": 2}}
    other = {"data": {"seed": 2}, "trainer": config["trainer"]}
    assert config_key(config) == config_key(again) != config_key(other)
