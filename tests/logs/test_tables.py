"""Tables of curves, of crossings and of one run: what a cell may say, and every refusal."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
import pytest

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.run_log import validation_key
from cbsbayes.logs.tables import Table, load_table, read_crossings, read_curves, read_table

ROW = {"run": "a", "n_prompts": 8, "n_rollouts": 4, "step": 0, "accuracy": 0.1}
CROSSING = {"run": "a", "n_prompts": 8, "n_rollouts": 4, "threshold": 0.5}
BOUNDS = {"steps_lower": 25, "steps_upper": 50}


def curves(*rows, **common):
    return read_curves(Table(pd.DataFrame([{**ROW, **common, **row} for row in rows]), "t.csv"))


def crossings(*rows):
    return read_crossings(Table(pd.DataFrame([{**CROSSING, **row} for row in rows]), "t.csv"))


def stated(run):
    ((origin, values),) = run.settings
    assert origin == "table"
    return {key: value for key, value in values.items() if value != {}}


def from_text(tmp_path, text, encoding="utf-8"):
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    return read_curves(load_table(tmp_path / "t.csv"))


def test_one_run(tmp_path):
    (run,), notes = from_text(
        tmp_path, "run,step,accuracy,n_prompts,n_rollouts,seed,phase,learning_rate,"
        "mini_batch_prompts\na,25,0.5,128,8,3,p1,1e-6,64\na,0,0.25,128,8,3,p1,1e-6,64\n")
    assert (run.id, run.name, run.source, notes) == ("a", "a", "table", [])
    assert run.history.to_dict() == {validation_key("accuracy"): {0.0: 0.25, 25.0: 0.5}}
    assert stated(run) == {"n_prompts": 128, "n_rollouts": 8, "seed": 3, "phase": "p1",
                           "learning_rate": 1e-6, "mini_batch_prompts": 64}


def test_several_validation_sets_their_sizes_and_what_logs_call_otherwise():
    (run,), _ = curves({"metric": "openai/gsm8k", "n_items": 1319, "seconds_per_step": 2.0},
                       {"metric": "math", "n_items": 500, "accuracy": 0.2, "frac_zero_adv": 0.25},
                       {"metric": "", "n_items": -1, "accuracy": 0.3})
    assert stated(run)["n_items"] == {"openai/gsm8k": 1319, "math": 500}
    assert run.history.loc[0].to_dict() == {
        validation_key("openai/gsm8k"): 0.1, validation_key("math"): 0.2,
        validation_key("accuracy"): 0.3, "perf/time_per_step": 2.0, "frac_zero_adv": 0.25}


def test_one_axis_data():
    frame = pd.DataFrame({"run": [1, 2], "total_batch": [32, 64.0], "step": 5,
                          "accuracy": [3.5, 3.1], "direction": "decreasing"})
    runs, _ = read_curves(Table(frame, "t.csv"))
    assert [run.id for run in runs] == ["1", "2"]
    assert stated(runs[0]) == {"total_batch": 32.0, "direction": "decreasing"}


def test_the_datasets_own_long_table_comes_back():
    """Unknown values are -1 there."""
    (run,), notes = curves({"total_batch": 32, "seed": -1, "n_items": -1, "trainer_step": 0},
                           n_prompts=-1, n_rollouts=-1)
    assert stated(run) == {"total_batch": 32.0}
    assert notes == ["t.csv: columns not used: trainer_step"]


@pytest.mark.parametrize(("cell", "message"), [
    ({"accuracy": "61%"}, "data row 2: accuracy is '61%'; valid: a number"),
    ({"accuracy": True}, "data row 2: accuracy is True; valid: a number"),
    ({"step": ""}, "data row 2: step is nan; valid: a finite number from 0"),
    ({"step": -25}, "data row 2: step is -25; valid: a finite number from 0"),
    ({"run": " "}, "data row 2: run is ''; valid: a text that names the run"),
    ({"n_prompts": 0}, "data row 2: n_prompts is 0; valid: a whole number from 1"),
    ({"n_prompts": 1e300}, "data row 2: n_prompts is 1e.300; valid: a whole number from 1"),
    ({"n_rollouts": 2.5}, "data row 2: n_rollouts is 2.5; valid: a whole number from 1"),
    ({"total_batch": 0}, "data row 2: total_batch is 0; valid: a number above 0"),
    ({"learning_rate": -1e-6}, "learning_rate is -1e-06; valid: a number above 0"),
    ({"seed": 1.5}, "data row 2: seed is 1.5; valid: a whole number from 0"),
    ({"n_items": 0}, "data row 2: n_items is 0; valid: a whole number from 1"),
    ({"frac_zero_adv": 1.5}, "frac_zero_adv is 1.5; valid: from 0 to 1"),
    ({"run": "a", "seed": 2}, r"row 2: run 'a' has several values of seed \(1, 2\); give"),
    ({"run": "a", "n_items": 8}, r"several values of n_items \(9, 8\) at metric 'accuracy'; give"),
    ({"run": "a", "step": 0, "accuracy": 0.2},
     r"several values of accuracy \(0.1, 0.2\) at metric 'accuracy', step 0"),
], ids=range(16))
def test_impossible_cells(cell, message):
    with pytest.raises(CBSDataError, match=f"^t.csv.*{message}"):
        curves({"seed": 1, "n_items": 9}, {"run": "b", "step": 1, **cell})


def test_rows_written_twice_count_once():
    (run,), notes = curves({}, {}, {"accuracy": np.nan})
    assert run.history.to_numpy().tolist() == [[0.1]]
    assert notes == ["t.csv: rows written twice, counted once: 2"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_spreadsheet_exports(tmp_path, encoding, end):
    lines = ["run, step ,accuracy,total_batch", '"a,b",1,.5,32', "", "α,1,5e-1,32", ""]
    runs, _ = from_text(tmp_path, end.join(lines), encoding)
    assert [(run.id, run.history.iloc[0, 0]) for run in runs] == [("a,b", 0.5), ("α", 0.5)]


@pytest.mark.parametrize(("name", "content", "message"), [
    ("t.csv", b"", "is empty"),
    ("t.csv", b"run,step\n", "has no rows"),
    ("t.csv", b"run,step\na,1,2\n", "data row 1: 3 cells under 2 columns"),
    ("t.csv", b'run,step\n"a,1\n', "is no CSV in UTF-8"),
    ("t.csv", b"run,step\na\0,1\n", "is no CSV in UTF-8 .it holds NUL bytes"),
    ("t.csv", "run,step\né,1\n".encode("latin-1"), "is no CSV in UTF-8"),
    ("t.csv", b"\xff" + os.urandom(500), "is no CSV in UTF-8"),
    ("t.csv.gz", b"\x1f\x8b\x08\0cut", "cannot be unpacked"),
    ("t.parquet", b"PAR1" + bytes(200) + b"PAR1", "is no readable Parquet file"),
    ("t.csv", b"run,step,acuracy\na,1,1\n", r"no column 'accuracy' \(did you mean 'acuracy'"),
    ("t.csv", b"Run,Accuracy,n_prompts\na,1,8\n", r"'run' \(did you mean 'Run'\?\)"),
    ("t.csv", b"run,step,accuracy,step\na,1,1,1\n", "has column 'step' twice"),
], ids=range(12))
def test_what_is_no_table(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CBSDataError, match=message) as caught:
        read_table(tmp_path / name, tmp_path)
    assert "\n" not in str(caught.value)


def test_parquet_with_types_of_its_own(tmp_path):
    frame = pd.DataFrame([ROW, {**ROW, "step": 1}]).astype(
        {"n_prompts": "Int64", "accuracy": "Float32", "run": "category", "n_rollouts": "uint8"})
    frame.loc[1, ["n_prompts", "accuracy"]] = pd.NA
    folder = tmp_path / "x=y"  # a folder name that Parquet readers like to make a column of
    folder.mkdir()
    frame.set_index("step").to_parquet(folder / "t.parquet")
    (run,), notes = read_curves(load_table(folder / "t.parquet"))
    assert (stated(run), notes) == ({"n_prompts": 8, "n_rollouts": 4}, [])
    np.testing.assert_allclose(run.history.iloc[:, 0], [0.1, np.nan], rtol=1e-7)


def test_bounds_with_every_kind_of_censoring():
    (one, two), notes = crossings({"threshold": 0.7, "steps_lower": 100, "steps_upper": "inf"},
                                  {"threshold": 0.3, "steps_lower": 0, "steps_upper": 25},
                                  {"threshold": 0.5, **BOUNDS},
                                  {"run": "b", "steps_lower": "", "steps_upper": "NaN", "note": ""})
    expected = [[0.3, 0, 25], [0.5, 25, 50], [0.7, 100, np.inf]]
    assert one.crossings.to_numpy().tolist() == expected
    assert list(one.crossings) == ["threshold", "steps_lower", "steps_upper"]
    assert (one.id, one.source, len(one.history)) == ("a", "crossings", 0)
    assert stated(one) == {"n_prompts": 8, "n_rollouts": 4}
    assert two.crossings[["steps_lower", "steps_upper"]].isna().all(axis=None)
    assert notes == ["t.csv: columns not used: note"]


def test_exact_steps():
    (run,), _ = crossings({"steps": "40"}, {"threshold": 0.6, "steps": ""})
    np.testing.assert_array_equal(run.crossings, [[0.5, 40, 40], [0.6, np.nan, np.nan]])


@pytest.mark.parametrize(("rows", "message"), [
    ([{"steps": "never"}], "steps is 'never'; valid: a number, or blank"),
    ([{**BOUNDS, "n_prompts": 0}], "n_prompts is 0; valid: a whole number from 1"),
    ([{**BOUNDS, "steps": 30}], "has both steps and steps_lower, steps_upper"),
    ([BOUNDS, BOUNDS], "data row 2: run 'a' has threshold 0.5 twice"),
], ids=str)
def test_impossible_crossings(rows, message):
    with pytest.raises(CBSDataError, match=f"^t.csv.*{message}"):
        crossings(*rows)


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
