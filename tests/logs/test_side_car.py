"""Side-car configurations: which file belongs to a log, and what its values say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.side_car import find_config, read_config, resolve, run_name

scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text())
plain = scalars.filter(lambda value: not (isinstance(value, str) and "${" in value))
trees = st.dictionaries(
    st.text(min_size=1, max_size=5),
    st.recursive(plain, lambda inner: st.lists(inner, max_size=3), max_leaves=5),
    max_size=4,
)


def write(path: Path, content: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content) if path.suffix == ".json" else yaml.safe_dump(content))
    return path


@given(trees)
def test_plain_values_stay_as_they_are(tree):
    assert resolve(tree, "x") == (tree, [])


@pytest.mark.parametrize("suffix", [".config.yaml", ".config.yml", ".config.json"])
@pytest.mark.parametrize("log", ["run.jsonl", "run.log", "run.console.log"])
def test_side_car_beside_the_log(tmp_path, suffix, log):
    write(tmp_path / f"run{suffix}", {"data": {"train_batch_size": 32}})
    write(tmp_path / "other.config.yaml", {"data": {"train_batch_size": 64}})
    (tmp_path / log).touch()
    config, notes = find_config(tmp_path / log, tmp_path)
    assert config == {"data": {"train_batch_size": 32}}
    assert notes == []


def test_folder_has_its_side_car_beside_it(tmp_path):
    write(tmp_path / "lr1e-6_cr0.2.config.json", {"seed": 3})
    (tmp_path / "lr1e-6_cr0.2").mkdir()
    assert run_name(tmp_path / "lr1e-6_cr0.2") == "lr1e-6_cr0.2"
    assert find_config(tmp_path / "lr1e-6_cr0.2", tmp_path)[0] == {"seed": 3}


@pytest.mark.parametrize("place", ["day/run", "day"])
def test_hydras_own_copy(tmp_path, place):
    write(tmp_path / place / ".hydra" / "config.yaml", {"seed": 3})
    log = tmp_path / "day" / "run" / "metrics.jsonl"
    log.parent.mkdir(exist_ok=True)
    log.touch()
    assert find_config(log, tmp_path) == ({"seed": 3}, [])


def test_nothing_above_the_given_folder_is_looked_at(tmp_path):
    write(tmp_path / ".hydra" / "config.yaml", {"seed": 3})
    log = tmp_path / "logs" / "run.jsonl"
    log.parent.mkdir()
    log.touch()
    assert find_config(log, log.parent) == ({}, [])


def test_one_hydra_configuration_is_not_lent_to_several_runs(tmp_path):
    write(tmp_path / ".hydra" / "config.yaml", {"trainer": {"experiment_name": "a"}})
    for name in "ab":
        (tmp_path / f"{name}.jsonl").touch()
    assert find_config(tmp_path / "a.jsonl", tmp_path)[0] == {"trainer": {"experiment_name": "a"}}
    config, notes = find_config(tmp_path / "b.jsonl", tmp_path)
    assert config == {}
    assert "2 logs lie under it and its experiment_name is 'a'" in notes[0]


def test_numbers_are_read_as_omegaconf_reads_them(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("lr: 1e-6\nother: 1.0e-06\ndate: 2026-01-01\nn: 8\nname: e5\nquoted: '1e-6'\n")
    assert read_config(path)[0] == {
        "lr": 1e-6,
        "other": 1e-6,
        "date": "2026-01-01",
        "n": 8,
        "name": "e5",
        "quoted": "1e-6",
    }


@pytest.mark.parametrize(
    ("value", "resolved"),
    [
        ("${a.n}", 8),
        ("${a.list}", [1, 8]),
        ("${a.again}", 8),
        ("${a}", {"n": 8, "list": [1, 8], "again": 8}),
        ("${oc.select:a.n,1}", 8),
        ("${oc.select:a.gone,1e-6}", 1e-6),
        ("${oc.select:a.gone,null}", None),
        ("${oc.select:a.gone,[1, 2]}", [1, 2]),
        ("${oc.select:a.gone}", None),
        ("$5", "$5"),
    ],
)
def test_plain_references(value, resolved):
    tree = {"a": {"n": 8, "list": [1, "${a.n}"], "again": "${oc.select:a.n,2}"}, "b": value}
    assert resolve(tree, "x")[0]["b"] == resolved


@pytest.mark.parametrize(
    "value",
    [
        "${a.gone}",
        "${.n}",
        "${oc.env:HOME}",
        "${oc.select:a.gone,${a.n}}",
        "${b}",
        "${oc.select:b,1}",
        "lr${a.n}",
        "${a.n}${a.n}",
        "${now:%Y}",
        "${oc.select:a.gone,[}",
        "${a.n.deeper}",
    ],
)
def test_other_references_are_left_out_and_named(value):
    assert resolve({"a": {"n": 8}, "b": value}, "x") == ({"a": {"n": 8}}, ["b"])


def test_references_in_a_circle():
    config, unresolved = resolve({"a": "${b}", "b": {"c": "${a}"}}, "x")
    assert config == {"a": {}, "b": {"c": {}}}
    assert unresolved == ["a.c", "b.c.c"]


def test_recorded_configuration(root):
    config, notes = read_config(root / "tests" / "data" / "verl" / "kl.config.yaml")
    assert config["critic"]["rollout_n"] == config["actor_rollout_ref"]["rollout"]["n"] == 4
    assert config["actor_rollout_ref"]["actor"]["optim"]["lr"] == 1e-4
    assert "actor_rollout_ref.actor.checkpoint.load_contents" in notes[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- 1\n- 2\n", "holds a list, not a mapping"),
        ("", "holds a NoneType, not a mapping"),
        ("a: [1\n", "cannot be read as a configuration"),
        ("a: !!python/object/apply:os.system ['touch executed']\n", "cannot be read"),
        ("a: " + "[" * 3000, "cannot be read as a configuration"),
        ("".join(f"{'  ' * i}a:\n" for i in range(80)), "more than 100000 values or 64 levels"),
    ],
    ids=["list", "empty", "broken", "object", "nested", "deep"],
)
def test_what_is_no_configuration(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "c.yaml"
    path.write_text(content)
    with pytest.raises(CBSDataError, match=message) as caught:
        read_config(path)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["c.yaml"]


def test_aliases_that_multiply_are_refused(tmp_path):
    path = tmp_path / "c.yaml"
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    path.write_text("\n".join(lines))
    with pytest.raises(CBSDataError, match="more than 100000 values"):
        read_config(path)


@pytest.mark.parametrize("name", ["c.json", "c.yaml"])
def test_binary_file(tmp_path, name):
    (tmp_path / name).write_bytes(b"\xff\xfe\x00\x01" * 50)
    with pytest.raises(CBSDataError, match="cannot be read as a configuration"):
        read_config(tmp_path / name)
