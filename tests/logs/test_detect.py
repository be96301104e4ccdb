"""What the user names is given to the right reader; a run logged twice is counted once."""

from __future__ import annotations

import json
import os
import shutil

import pytest
from verl_loggers import metric_rows, write_console, write_jsonl, write_tensorboard, write_wandb

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.detect import read_source, read_sources

CURVES = "run,step,accuracy,n_prompts,n_rollouts\nt,0,0.1,8,4\nt,5,0.2,8,4\n"
CROSSINGS = "run,threshold,steps,n_prompts,n_rollouts\nx,0.5,40,8,4\n"


@pytest.fixture
def recorded(root):
    return root / "tests" / "data" / "verl"


def ids(reading):
    return [log.id for log in reading[0]]


def test_every_kind_in_one_folder(tmp_path):
    folder = tmp_path / "all"
    (folder / "deep" / "er").mkdir(parents=True)
    write_jsonl(folder / "deep", "a", metric_rows(4))
    write_console(folder / "deep" / "er", "b", metric_rows(8))
    write_tensorboard(folder / "deep", "c", metric_rows(16))
    write_wandb(folder, iter([("d", metric_rows(32))]))
    (folder / "t.csv").write_text(CURVES)
    (folder / "x.csv").write_text(CROSSINGS)
    (folder / "deep" / "a.config.yaml").write_text("seed: 3\n")
    (folder / "notes.md").write_text("what I did")
    (folder / "other.csv").write_text("gpu,hours\n1,2\n")
    (folder / ".hidden.csv").write_text("gpu,hours\n1,2\n")
    logs, notes = read_source(str(folder))
    found = sorted((log.source, log.name, log.id) for log in logs)
    assert found.pop()[:2] == ("wandb_file", "d")
    assert found == [
        ("crossings", "x", "x"),
        ("table", "t", "t"),
        ("tensorboard", "c", "deep/c"),
        ("verl_console", "b", "deep/er/b.log"),
        ("verl_jsonl", "a", "deep/a.jsonl"),
    ]
    assert notes == [f"{folder}: files without runs, left out: notes.md, other.csv"]


@pytest.mark.parametrize("name", ["kl.jsonl", "kl.console.log", "long.jsonl"])
def test_one_file(recorded, name):
    reading = read_source(str(recorded / name))
    assert ids(reading) == [name]
    assert reading[1] == []


def test_console_output_may_have_any_name(recorded, tmp_path):
    shutil.copy(recorded / "kl.console.log", tmp_path / "slurm-1234")
    assert read_source(str(tmp_path / "slurm-1234"))[0][0].source == "verl_console"


def test_wandbs_copy_of_the_console_is_not_a_second_run(tmp_path):
    write_wandb(tmp_path, iter([("d", metric_rows(4))]))
    (log,) = tmp_path.rglob("*.wandb")
    write_console(log.parent / "files", "output", metric_rows(4))
    logs, notes = read_source(str(tmp_path))
    assert [run.source for run in logs] == ["wandb_file"]
    assert notes == []


def fill_empty(folder):
    pass


def fill_foreign(folder):
    (folder / "README.md").touch()
    (folder / "run.nc").write_bytes(os.urandom(64))


def fill_damaged(folder):
    (folder / "a.jsonl").write_text('{"no": "row"}\n')
    (folder / "b.log").write_text("Traceback (most recent call last):\n")


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (fill_empty, r"no run in .* \(the folder is empty\); valid sources: wandb:ENTITY/PROJECT"),
        (fill_foreign, r"no run in .* \(files not recognised: README.md, run.nc\)"),
        (fill_damaged, r"a\.jsonl, b\.log\); .* holds no line of verl's"),
    ],
)
def test_folder_without_runs(tmp_path, fill, message):
    fill(tmp_path)
    with pytest.raises(CBSDataError, match=message) as caught:
        read_source(str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ["missing", "missing/file.jsonl"])
def test_no_such_source(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CBSDataError, match=r"there is no file or folder .*; valid: wandb:"):
        read_source(source)


@pytest.mark.parametrize("content", ["gpu,hours\n1,2\n", "run,step,acc\n"])
def test_a_table_given_by_name_must_be_one(tmp_path, content):
    path = tmp_path / "t.csv"
    path.write_text(content)
    with pytest.raises(CBSDataError, match=r"has no (column|rows)"):
        read_source(str(path))


def test_a_bad_cell_is_an_error_in_a_folder_too(tmp_path, recorded):
    shutil.copy(recorded / "kl.jsonl", tmp_path)
    (tmp_path / "t.csv").write_text(CURVES + "t,9,oops,8,4\n")
    with pytest.raises(CBSDataError, match="data row 3: accuracy is 'oops'"):
        read_source(str(tmp_path))


def test_one_run_in_several_tables(tmp_path):
    (tmp_path / "a.csv").write_text(CURVES)
    (tmp_path / "b.csv").write_text(CURVES.replace("0.2", "0.3"))
    with pytest.raises(CBSDataError, match=r"run 't' of .* comes in several tables; put all rows"):
        read_sources([str(tmp_path)])


@pytest.mark.parametrize("address", ["https://wandb.ai/ent/proj", "wandb.ai/ent/proj/runs/x?nw=1"])
def test_an_address_names_a_project(address, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "cbsbayes.logs.wandb_service.read_wandb_api",
        lambda project, **options: asked.append(project) or [],
    )
    read_source(address)
    assert asked == ["ent/proj"]


def test_what_a_name_says_nothing_of_is_told_by_content(tmp_path, recorded):
    for name in ("a.err", "b.log.1", "C.LOG", "d"):
        shutil.copy(recorded / "kl.console.log", tmp_path / name)
    (tmp_path / "train.parquet").write_text("version https://git-lfs\n")
    (tmp_path / "gpu.csv").write_text("a,b\n1,2,3\n")
    (tmp_path / "empty.csv").touch()
    (tmp_path / "weights.dat").write_bytes(b"\0\1" * 100)
    logs, notes = read_source(str(tmp_path))
    assert [log.name for log in logs] == ["C", "a", "b", "d"]
    assert notes == [
        f"{tmp_path}: files without runs, left out: empty.csv, gpu.csv, train.parquet, weights.dat"
    ]


def test_a_folder_names_its_run(tmp_path):
    for n in (4, 8):
        (tmp_path / f"run{n}").mkdir()
        write_console(tmp_path / f"run{n}", "train", metric_rows(n))
    assert [log.name for log in read_source(str(tmp_path))[0]] == ["run4", "run8"]


def test_a_trainers_state(tmp_path):
    state = {"log_history": [{"step": 10, "loss": 0.1}, {"step": 10, "eval_reward": 0.3}]}
    path = tmp_path / "checkpoint-10" / "trainer_state.json"
    path.parent.mkdir()
    path.write_text(json.dumps(state))
    ((log,), _) = read_source(str(path.parent))
    assert log.history.loc[10].to_dict() == {"loss": 0.1, "eval_reward": 0.3}
    (tmp_path / "records.json").write_text(
        json.dumps([{"run": "a", "step": 0, "accuracy": 0.1, "n_prompts": 8, "n_rollouts": 8}])
    )
    assert read_source(str(tmp_path / "records.json"))[0][0].settings["n_prompts"] == 8
