"""Side-car configurations: which file belongs to a log, and what its values say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.history import empty_history
from cbsbayes.logs.run_log import RunLog
from cbsbayes.logs.run_name import run_name
from cbsbayes.logs.side_car import configure, read_config


def write(path: Path, content: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content) if path.suffix == ".json" else yaml.safe_dump(content))
    return path


def configured(root, *paths):
    """Return the logs of these files with what lies beside them."""
    logs = []
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        logs.append(RunLog(id=path.relative_to(root).as_posix(), name=run_name(path, root),
                           source="verl_jsonl", history=empty_history()))
    return configure(logs, root)


@pytest.mark.parametrize("suffix", [".config.yaml", ".config.yml", ".config.json"])
@pytest.mark.parametrize("log", ["run.jsonl", "run.log", "run.console.log"])
def test_side_car_beside_the_log(tmp_path, suffix, log):
    write(tmp_path / f"run{suffix}", {"data": {"train_batch_size": 32}})
    write(tmp_path / "other.config.yaml", {"data": {"train_batch_size": 64}})
    assert configured(tmp_path, tmp_path / log)[0].config == {"data": {"train_batch_size": 32}}


def test_folder_has_its_side_car_beside_it(tmp_path):
    write(tmp_path / "lr1e-6_cr0.2.config.json", {"seed": 3})
    (tmp_path / "lr1e-6_cr0.2").mkdir()
    log = RunLog(id="lr1e-6_cr0.2", name="x", source="tensorboard", history=empty_history())
    assert configure([log], tmp_path)[0].config == {"seed": 3}


@pytest.mark.parametrize("place", ["day/run", "day"])
@pytest.mark.parametrize("name", [".hydra/config.yaml", "config.yaml", "experiment_config.json"])
def test_the_configuration_of_the_only_run_below(tmp_path, place, name):
    write(tmp_path / place / name, {"seed": 3})
    assert configured(tmp_path, tmp_path / "day" / "run" / "a.jsonl")[0].config == {"seed": 3}


def test_nothing_above_the_given_folder_is_looked_at(tmp_path):
    write(tmp_path / ".hydra" / "config.yaml", {"seed": 3})
    assert configured(tmp_path / "logs", tmp_path / "logs" / "a.jsonl")[0].config == {}


def test_one_configuration_is_not_lent_to_several_runs(tmp_path):
    write(tmp_path / ".hydra" / "config.yaml", {"seed": 3})
    same = configured(tmp_path, tmp_path / "a.jsonl", tmp_path / "a.console.log")
    assert [log.config for log in same] == [{"seed": 3}] * 2
    two = configured(tmp_path, tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    assert [log.config for log in two] == [{}, {}]


def test_a_generic_name_gives_way_to_the_experiments(tmp_path):
    write(tmp_path / "x" / "config.yaml", {"trainer": {"experiment_name": "bs8"}})
    write(tmp_path / "cbs_p1_np8_nr8" / "config.yaml", {"trainer": {"experiment_name": "bs9"}})
    logs = configured(tmp_path, tmp_path / "x" / "train.log",
                      tmp_path / "cbs_p1_np8_nr8" / "train.log")
    assert [log.name for log in logs] == ["bs8", "cbs_p1_np8_nr8"]


def test_a_side_car_counts_more_than_what_was_printed(tmp_path):
    write(tmp_path / "a.config.yaml", {"seed": 3})
    log = replace(configured(tmp_path, tmp_path / "b.log")[0], id="a.log", config={"seed": 4})
    (found,) = configure([log], tmp_path)
    assert found.config == {"seed": 3}
    assert found.further == (("printed configuration", {"seed": 4}),)


def test_wandbs_own_file_is_unpacked(tmp_path):
    write(tmp_path / "config.yaml", {"_wandb": {"value": {}},
                                     "a": {"desc": None, "value": {"b": 1}}})
    assert read_config(tmp_path / "config.yaml") == {"a": {"b": 1}}


def test_numbers_are_read_as_omegaconf_reads_them(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("lr: 1e-6\nother: 1.0e-06\ndate: 2026-01-01\nn: 8\nname: e5\nquoted: '1e-6'\n")
    assert read_config(path) == {
        "lr": 1e-6,
        "other": 1e-6,
        "date": "2026-01-01",
        "n": 8,
        "name": "e5",
        "quoted": "1e-6",
    }


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


def test_merge_keys_are_not_followed(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("a: &a {x: 1}\nb:\n  <<: *a\n")
    assert read_config(path)["b"] == {"<<": {"x": 1}}
