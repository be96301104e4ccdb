"""Tables of curves, of crossings and of one run: what a cell may say, and every refusal."""

from __future__ import annotations

import json
import math
import os

import numpy as np
import pandas as pd
import pytest

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.history import validation_key
from cbsbayes.logs.tables import Table, load_table, read_crossings, read_curves, read_table

ROW = {"run": "a", "n_prompts": 8, "n_rollouts": 4, "step": 0, "accuracy": 0.1}


def curves(*rows, **common):
    frame = pd.DataFrame([{**ROW, **common, **row} for row in rows])
    return read_curves(Table(frame, "t.csv"))


def stated(run):
    ((origin, values),) = run.settings
    assert origin == "table"
    return {key: value for key, value in values.items() if value != {}}


def from_text(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode(encoding))
    return read_curves(load_table(path))


def test_one_run(tmp_path):
    (run,), notes = from_text(
        tmp_path,
        "run,step,accuracy,n_prompts,n_rollouts,seed,phase,learning_rate,mini_batch_prompts\n"
        "a,25,0.5,128,8,3,p1,1e-6,64\na,0,0.25,128,8,3,p1,1e-6,64\n",
    )
    assert (run.id, run.name, run.source) == ("a", "a", "table")
    assert run.history.to_dict() == {validation_key("accuracy"): {0.0: 0.25, 25.0: 0.5}}
    assert stated(run) == {"n_prompts": 128, "n_rollouts": 8, "seed": 3, "phase": "p1",
                           "learning_rate": 1e-6, "mini_batch_prompts": 64}
    assert notes == []


def test_several_validation_sets_and_their_sizes():
    (run,), _ = curves(
        {"metric": "openai/gsm8k", "n_items": 1319},
        {"metric": "math", "n_items": 500, "accuracy": 0.2},
        {"metric": "", "n_items": -1, "accuracy": 0.3},
    )
    assert stated(run)["n_items"] == {"openai/gsm8k": 1319, "math": 500}
    assert run.history.loc[0].to_dict() == {
        validation_key("openai/gsm8k"): 0.1,
        validation_key("math"): 0.2,
        validation_key("accuracy"): 0.3,
    }


def test_per_step_columns_take_the_keys_of_logs():
    (run,), _ = curves({"step": 1, "seconds_per_step": 2.0, "frac_zero_adv": 0.25}, {})
    assert run.history["perf/time_per_step"].tolist()[1] == 2.0
    assert math.isnan(run.history["perf/time_per_step"].tolist()[0])
    assert run.history.loc[1, "frac_zero_adv"] == 0.25


def test_one_axis_data():
    runs, _ = read_curves(
        Table(
            pd.DataFrame(
                {"run": [1, 2], "total_batch": [32, 64.0], "step": 5, "accuracy": [3.5, 3.1]}
            ).assign(direction="decreasing"),
            "t.csv",
        )
    )
    assert [run.id for run in runs] == ["1", "2"]
    assert stated(runs[0]) == {"total_batch": 32.0, "direction": "decreasing"}


def test_the_datasets_own_long_table_comes_back(tmp_path):
    """Unknown values are -1 there."""
    (run,), notes = curves(
        {"total_batch": 32, "seed": -1, "n_items": -1, "trainer_step": 0, "samples": 0},
        n_prompts=-1,
        n_rollouts=-1,
    )
    assert stated(run) == {"total_batch": 32.0}
    assert notes == ["t.csv: columns not used: trainer_step, samples"]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ({"accuracy": "61%"}, "data row 2: accuracy is '61%'; valid: a number"),
        ({"accuracy": True}, "data row 2: accuracy is True; valid: a number"),
        ({"step": ""}, "data row 2: step is nan; valid: a finite number from 0"),
        ({"step": -25}, "data row 2: step is -25; valid: a finite number from 0"),
        ({"run": " "}, "data row 2: run is ''; valid: a text that names the run"),
        ({"n_prompts": 0}, "data row 2: n_prompts is 0; valid: a whole number from 1"),
        ({"n_rollouts": 2.5}, "data row 2: n_rollouts is 2.5; valid: a whole number from 1"),
        ({"total_batch": 0}, "data row 2: total_batch is 0; valid: a number above 0"),
        ({"learning_rate": -1e-6}, "learning_rate is -1e-06; valid: a number above 0"),
        ({"seed": 1.5}, "data row 2: seed is 1.5; valid: a whole number from 0"),
        ({"n_items": 0}, "data row 2: n_items is 0; valid: a whole number from 1"),
        ({"frac_zero_adv": 1.5}, "frac_zero_adv is 1.5; valid: from 0 to 1"),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(value),
)
def test_impossible_cells(cell, message):
    with pytest.raises(CBSDataError, match=f"^t.csv.*{message}"):
        curves({}, {"run": "b", "step": 1, **cell})


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (({"seed": 1}, {"step": 1, "seed": 2}), r"run 'a' has several values of seed \(1.*, 2"),
        (({"n_items": 9}, {"step": 1, "n_items": 8}), r"several values of n_items .*\(9, 8\)"),
        (({}, {"accuracy": 0.2}), r"run 'a' has several accuracies \(0.1, 0.2\) for 'accuracy'"),
    ],
    ids=["seed", "n_items", "accuracy"],
)
def test_what_a_run_contradicts(rows, message):
    with pytest.raises(CBSDataError, match=message):
        curves(*rows)


def test_rows_written_twice_count_once():
    (run,), notes = curves({}, {}, {"accuracy": math.nan})
    assert len(run.history) == 1
    assert run.history.iloc[0, 0] == 0.1
    assert notes == ["t.csv: 2 row(s) written twice were counted once"]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("run,step,acuracy,n_prompts,n_rollouts", r"no column 'accuracy' \(did you mean 'acuracy'"),
        ("Run,Accuracy,n_prompts,n_rollouts", r"'run' \(did you mean 'Run'\?\)"),
        ("run,step,accuracy,step,n_prompts,n_rollouts", "has column 'step' twice"),
    ],
)
def test_missing_columns(tmp_path, header, message):
    cells = ",".join("1" for _ in header.split(","))
    path = tmp_path / "t.csv"
    path.write_text(f"{header}\n{cells}\n")
    with pytest.raises(CBSDataError, match=message) as caught:
        read_table(path, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_spreadsheet_exports(tmp_path, encoding, end):
    lines = ["run, step ,accuracy,total_batch", '"a,b",1,.5,32', "", "α,1,5e-1,32", ""]
    runs, _ = from_text(tmp_path, end.join(lines), encoding)
    assert [run.id for run in runs] == ["a,b", "α"]
    assert [run.history.iloc[0, 0] for run in runs] == [0.5, 0.5]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"run,step\n", "has no rows"),
        (b"run,step\na,1,2\n", "data row 1: 3 cells under 2 columns"),
        (b'run,step\n"a,1\n', "is no CSV in UTF-8"),
        (b"run,step\na\0,1\n", "is no CSV in UTF-8 .it holds NUL bytes"),
        ("run,step\né,1\n".encode("latin-1"), "is no CSV in UTF-8"),
        (b"\xff" + os.urandom(500), "is no CSV in UTF-8"),
    ],
    ids=["empty", "header", "long", "quote", "nul", "latin-1", "binary"],
)
def test_what_is_no_csv(tmp_path, content, message):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(CBSDataError, match=message) as caught:
        load_table(path)
    assert "\n" not in str(caught.value)


def test_parquet_with_types_of_its_own(tmp_path):
    frame = pd.DataFrame([ROW, {**ROW, "step": 1}]).astype(
        {"n_prompts": "Int64", "accuracy": "Float32", "run": "category", "n_rollouts": "uint8"}
    )
    frame.loc[1, ["n_prompts", "accuracy"]] = pd.NA
    folder = tmp_path / "x=y"  # a folder name that Parquet readers like to make a column of
    folder.mkdir()
    frame.set_index("step").to_parquet(folder / "t.parquet")
    (run,), notes = read_curves(load_table(folder / "t.parquet"))
    assert stated(run) == {"n_prompts": 8, "n_rollouts": 4}
    np.testing.assert_allclose(run.history.iloc[:, 0], [0.1, math.nan], rtol=1e-7)
    assert notes == []


def test_shipped_sweep_of_tiny_grpo(public_data):
    runs, notes = read_curves(load_table(public_data / "tiny_grpo" / "curves.parquet"))
    frame = pd.read_parquet(public_data / "tiny_grpo" / "curves.parquet")
    assert len(runs) == frame["run"].nunique() == 63
    assert sum(len(run.history) for run in runs) == len(frame)
    assert stated(runs[0])["n_items"] == {"accuracy": 1024}
    assert "train_reward" in notes[0]
    own = frame[frame["run"] == runs[5].id].sort_values("step")
    np.testing.assert_array_equal(runs[5].history[validation_key("accuracy")], own["accuracy"])
    np.testing.assert_allclose(runs[5].history["frac_zero_adv"], own["frac_zero_adv"])


CROSSING = {"run": "a", "n_prompts": 8, "n_rollouts": 4, "threshold": 0.5}
BOUNDS = {"steps_lower": 25, "steps_upper": 50}


def crossings(*rows):
    return read_crossings(Table(pd.DataFrame([{**CROSSING, **row} for row in rows]), "t.csv"))


def test_bounds_with_every_kind_of_censoring():
    (one, two), notes = crossings(
        {"threshold": 0.7, "steps_lower": 100, "steps_upper": "inf"},
        {"threshold": 0.3, "steps_lower": 0, "steps_upper": 25},
        {"threshold": 0.5, **BOUNDS},
        {"run": "b", "steps_lower": "", "steps_upper": "NaN", "note": "x"},
    )
    expected = pd.DataFrame(
        {
            "threshold": [0.3, 0.5, 0.7],
            "steps_lower": [0.0, 25, 100],
            "steps_upper": [25, 50, np.inf],
        }
    )
    pd.testing.assert_frame_equal(one.crossings, expected)
    assert (one.id, one.source, len(one.history)) == ("a", "crossings", 0)
    assert stated(one) == {"n_prompts": 8, "n_rollouts": 4}
    assert two.crossings[["steps_lower", "steps_upper"]].isna().all(axis=None)
    assert notes == ["t.csv: columns not used: note"]


def test_exact_steps():
    (run,), _ = crossings({"steps": "40"}, {"threshold": 0.6, "steps": ""})
    assert (
        run.crossings["steps_lower"].tolist()[0] == run.crossings["steps_upper"].tolist()[0] == 40
    )
    assert math.isnan(run.crossings["steps_upper"].tolist()[1])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"steps": "never"}, "steps is 'never'; valid: a number, or blank"),
        ({**BOUNDS, "n_prompts": 0}, "n_prompts is 0; valid: a whole number from 1"),
        ({**BOUNDS, "steps": 30}, "has both steps and steps_lower, steps_upper"),
    ],
    ids=str,
)
def test_impossible_crossings(row, message):
    with pytest.raises(CBSDataError, match=f"^t.csv.*{message}"):
        crossings(row)


def test_published_steps_to_loss(public_data):
    """Zhang et al. 2024: one-axis data, exact steps, no seeds."""
    path = public_data / "zhang2024_cbs" / "chinchilla_steps_to_loss.json"
    found = json.loads(path.read_text())
    frame = pd.DataFrame(
        found["steps_to_goal_cell5_used_for_fit"], index=found["batch_sizes_sequences"]
    )
    long = frame.rename_axis("total_batch").melt(
        var_name="model", value_name="steps", ignore_index=False
    )
    long = long.reset_index().assign(threshold=lambda t: t["model"].map(found["goal_loss"]))
    long["run"] = long["model"] + "-" + long["total_batch"].astype(str)
    runs, notes = read_crossings(Table(long, "zhang"))
    assert len(runs) == 45
    assert notes == []
    for run in runs:
        at = int(stated(run)["total_batch"]), stated(run)["model"]
        assert run.crossings["steps_lower"].tolist() == [frame.loc[at]]
        assert run.crossings["threshold"].tolist() == [found["goal_loss"][at[1]]]


@pytest.mark.parametrize(("name", "text", "keys", "steps"), [
    ("run.csv", ",_step,_runtime,val-core/m/acc/mean@1,note\n"
     "0,0,1,0.1,x\n1,10,2,,y\n2,20,3,.3,z\n",
     [validation_key("m")], [0, 20]),
    ("run.csv", "Wall time,Step,Value\n1.0,0,0.1\n2.0,5,0.2\n", [validation_key("value")], [0, 5]),
    ("run.tsv", "Step\teval/acc\n0\t0.1\n5\t0.2\n", ["eval/acc"], [0, 5]),
])
def test_a_history_of_one_run(tmp_path, name, text, keys, steps):
    (tmp_path / name).write_text(text)
    (log,), notes = read_table(tmp_path / name, tmp_path)
    assert (log.name, log.source, notes) == ("run", "history", [])
    assert list(log.history.columns) == keys
    assert log.history.index.tolist() == steps


def test_a_wandb_chart_holds_a_run_per_column(tmp_path):
    path = tmp_path / "wandb_export.csv"
    path.write_text('"Step","a - b - acc","a - b - acc__MIN","c - acc"\n'
                    '"0","0.1","0.0",""\n"10","","","0.5"\n')
    logs, _ = read_table(path, tmp_path)
    assert [(log.name, log.history["acc"].to_dict()) for log in logs] == [
        ("a - b", {0.0: 0.1}), ("c", {10.0: 0.5})]
    assert len({log.id for log in logs}) == 2
