"""Raw rows become verl's parquet: answers, copies, held-out problems, damaged files."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from data.prepare.__main__ import main
from data.prepare.recipes import RECIPES, Problem
from data.prepare.unique import Counts, choose, key_of, select
from training.rewards import RULES, compute_score

GSM8K_TRAIN = [
    {"question": "Ann has 3 nets with 4 crabs each. How many crabs?",
     "answer": "3 nets hold 3*4=<<3*4=12>>12 crabs.\n#### 12"},
    {"question": "A kiln fires 1250 tiles a day. How many in 2 days?",
     "answer": "Twice.\n#### 2,500"},
    {"question": "ann has 3 nets with 4  crabs each. How many crabs?", "answer": "12.\n#### 12"},
    {"question": "A lamp burns 5 W. What of two?", "answer": "10"},
    {"question": "Held out: what is 2 + 2?", "answer": "#### 4"},
    {"question": "Which is it?", "answer": "#### 1"},
    {"question": "Which is it?", "answer": "#### 2"},
]
GSM8K_TEST = [{"question": "Held  out: what is 2 + 2?", "answer": "Four.\n#### 4"},
              {"question": "Six eggs, 7 boxes: how many eggs?", "answer": "#### 42"}]
MATH_ROW = {"problem": "Simplify $\\frac{2}{4}$.", "level": "Level 1", "type": "Prealgebra",
            "solution": "It was \\boxed{\\frac{2}{4}}, so $\\boxed{\\frac{1}{2}}$."}
DERIVED = [("How many is 6 + 1?", "7", "augmented_gsm8k"),
           ("How many is 6 + 1?", "7", "augmented_gsm8k"),
           ("Held out: what is 2 + 2?", "4", "gsm8k"), ("How many?", "a few", "augmented_gsm8k"),
           ("Expand $(x+1)^2$.", "x^2+2x+1", "augmented_math")]


def jsonl(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def prepare(*arguments):
    return main([str(argument) for argument in arguments])


def rows_of(file):
    return pd.read_parquet(file).to_dict("records")


@pytest.fixture
def gsm8k(tmp_path):
    raw = tmp_path / "raw"
    jsonl(raw / "train.jsonl", GSM8K_TRAIN)
    jsonl(raw / "train_socratic.jsonl", GSM8K_TRAIN)  # lies beside it in the original repository
    jsonl(raw / "test.jsonl", GSM8K_TEST)
    return raw


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def refused(capsys, *arguments):
    assert prepare(*arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("data.prepare: ")
    assert error.count("\n") == 1
    return error


def test_rows_are_those_verl_reads_and_every_one_is_accounted_for(gsm8k, out, capsys):
    assert prepare("gsm8k", "--from", gsm8k, "-o", out) == 0
    assert capsys.readouterr().out.splitlines()[0].endswith(
        "train.parquet: 7 read, 1 without answer, 1 repeated, 2 contradicted, 1 in validation, "
        "2 written")
    counts = json.loads((out / "prepare.json").read_text())["counts"]["train"]
    assert counts.pop("read") == sum(counts.values())
    first, second = rows_of(out / "train.parquet")
    assert list(first) == ["data_source", "prompt", "ability", "reward_model", "extra_info"]
    assert first["prompt"][0]["role"] == "user"
    assert first["prompt"][0]["content"].startswith(GSM8K_TRAIN[0]["question"])
    assert first["reward_model"] == {"style": "rule", "ground_truth": "12"}
    assert (first["extra_info"]["index"], first["extra_info"]["split"]) == (0, "train")
    for row in (first, second, *rows_of(out / "test.parquet")):
        truth = row["reward_model"]["ground_truth"]
        assert compute_score(row["data_source"], f"So #### {truth}", truth)["score"] == 1


def test_parquet_shards_give_the_bytes_that_jsonl_gives(gsm8k, out, tmp_path):
    shards = tmp_path / "hub" / "main"
    shards.mkdir(parents=True)
    for split, rows in (("train", GSM8K_TRAIN), ("test", GSM8K_TEST)):
        for i, part in enumerate((rows[:1], rows[1:])):
            parquet.write_table(pa.Table.from_pylist(part),
                                shards / f"{split}-0000{i}-of-00002.parquet")
    prepare("gsm8k", "--from", gsm8k, "-o", out)
    prepare("gsm8k", "--from", tmp_path / "hub", "-o", tmp_path / "other")
    for name in ("train.parquet", "test.parquet"):
        assert (out / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_fewer_items_are_the_same_ones_in_any_order(gsm8k, out, tmp_path):
    prepare("gsm8k", "--from", gsm8k, "-o", out, "--train-items", 1)
    jsonl(gsm8k / "train.jsonl", GSM8K_TRAIN[::-1])
    prepare("gsm8k", "--from", gsm8k, "-o", tmp_path / "again", "--train-items", 1)
    (one,), (other,) = (rows_of(folder / "train.parquet") for folder in (out, tmp_path / "again"))
    assert key_of(one["extra_info"]["question"]) == key_of(other["extra_info"]["question"])


def test_math_is_read_from_folders_and_math500_held_out_of_it(tmp_path, out):
    jsonl(tmp_path / "five" / "test.jsonl", [
        {"problem": "train 2?", "answer": "\\frac{1}{2}", "subject": "Prealgebra",
         "level": 1, "solution": "", "unique_id": "a"}])
    for split in ("train", "test"):
        for number in (2, 10, 1):
            file = tmp_path / "MATH" / split / "prealgebra" / f"{number}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps({**MATH_ROW, "problem": f"{split} {number}?"}))
    assert prepare("math500", "--from", tmp_path / "five", "-o", tmp_path / "v") == 0
    assert not (tmp_path / "v" / "train.parquet").exists()
    assert prepare("math", "--from", tmp_path / "MATH", "-o", out, "--validation",
                   tmp_path / "v" / "test.parquet") == 0
    rows = rows_of(out / "train.parquet")
    assert [row["extra_info"]["question"] for row in rows] == ["train 1?", "train 10?"]
    assert {row["reward_model"]["ground_truth"] for row in rows} == {"\\frac{1}{2}"}
    assert rows[0]["extra_info"]["subject"] == "Prealgebra"
    assert rows[0]["prompt"][0]["content"].endswith("within \\boxed{}.")


def test_derived_problems_are_taken_once_in_the_format_of_their_set(gsm8k, tmp_path, out, capsys):
    raw = tmp_path / "omi" / "data"
    raw.mkdir(parents=True)
    names = ("problem", "expected_answer", "problem_source")
    rows = [dict(zip(names, row, strict=True)) | {"generated_solution": ""} for row in DERIVED]
    parquet.write_table(pa.Table.from_pylist(rows), raw / "train_1M-00000-of-00001.parquet")
    prepare("gsm8k", "--from", gsm8k, "-o", tmp_path / "gsm8k")
    asked = ("openmathinstruct2", "--from", raw.parent, "--split", "train_1M", "-o", out)
    assert "--validation" in refused(capsys, *asked)
    held = ("--validation", tmp_path / "gsm8k" / "test.parquet")
    assert prepare(*asked, *held) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith(
        "5 read, 1 without answer, 1 repeated, 1 in validation, 2 written")
    word, algebra = rows_of(out / "train.parquet")
    assert word["data_source"] == "nvidia/OpenMathInstruct-2/gsm8k"
    assert "####" in word["prompt"][0]["content"]
    assert word["extra_info"]["derived_from"] == "augmented_gsm8k"
    assert "\\boxed" in algebra["prompt"][0]["content"]
    prepare(*asked[:-1], tmp_path / "one", *held, "--derived-from", "gsm8k")
    (row,) = rows_of(tmp_path / "one" / "train.parquet")
    assert row["reward_model"]["ground_truth"] == "7"


@pytest.mark.parametrize(("content", "message"), [
    (b'{"question": "a", "answer": "#### 1"}\n{"question": "b", "ans', "line 2: no valid JSON"),
    (b'{"question": "a"}\n', "row 1: no answer"),
    (b'{"question": "a", "answer": 5}\n', "answer is int, not text"),
    (b"5\n", "int instead of an object"), (b"", "nothing is left of gsm8k, train"),
    (b"\xff\xfe", "not UTF-8"),
])
def test_damaged_rows(gsm8k, out, capsys, content, message):
    (gsm8k / "train.jsonl").write_bytes(content)
    assert message in refused(capsys, "gsm8k", "--from", gsm8k, "-o", out)
    assert not out.exists()


@pytest.mark.parametrize(("arguments", "message"), [
    (["gsm8k", "--from", "no"], "does not exist"),
    (["gsm8k", "--from", "raw", "--split", "train_9M"], "test, train, train_socratic"),
    (["gsm8k", "--from", "raw", "--validation", "x.parquet"], "was not written by"),
    (["gsm8k", "--from", "raw", "--validation", "y.parquet"], "no validation file"),
    (["gsm8k", "--from", "both"], "as .jsonl and as .parquet"),
    (["gsm8k", "--from", "cut"], "no readable parquet"),
    (["gsm8k", "--derived-from", "math"], "--derived-from"),
    (["math500", "--train-items", "3"], "--train-items does not fit math500"),
    (["gsm8k", "--from", ".", "--revision", "abc"], "give one of them"),
])
def test_what_cannot_be_prepared(gsm8k, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    pd.DataFrame({"x": [1]}).to_parquet(tmp_path / "x.parquet")
    jsonl(tmp_path / "both" / "train.jsonl", GSM8K_TRAIN)
    for folder in ("both", "cut"):
        (tmp_path / folder).mkdir(exist_ok=True)
        parquet.write_table(pa.Table.from_pylist(GSM8K_TRAIN), f"{folder}/train.parquet")
        jsonl(tmp_path / folder / "test.jsonl", GSM8K_TEST)
    cut = tmp_path / "cut" / "train.parquet"
    cut.write_bytes(cut.read_bytes()[:-20])
    assert message in refused(capsys, *arguments, "-o", "out")
    assert not (tmp_path / "out").exists()


def test_other_content_is_not_overwritten_unasked(gsm8k, out, capsys):
    asked = ("gsm8k", "--from", gsm8k, "-o", out)
    prepare(*asked)
    before = (out / "train.parquet").read_bytes()
    assert prepare(*asked) == 0  # the same content
    jsonl(gsm8k / "train.jsonl", GSM8K_TRAIN[:1])
    capsys.readouterr()
    assert "--overwrite" in refused(capsys, *asked)
    assert (out / "train.parquet").read_bytes() == before
    assert prepare(*asked, "--overwrite") == 0
    assert (out / "train.parquet").read_bytes() != before


def test_without_the_hub_s_package_a_line_says_so_and_nothing_heavy_is_imported(root, out):
    code = ("import sys; sys.modules['datasets'] = None\n"
            "from data.prepare.__main__ import main\n"
            f"status = main(['gsm8k', '-o', {str(out)!r}])\n"
            "print(status, {'torch', 'verl', 'pymc', 'arviz'} & set(sys.modules))")
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True,
                          check=True, env={**os.environ, "PYTHONPATH": str(root)})
    assert done.stdout == "1 set()\n"
    assert "needs the package 'datasets'" in done.stderr
    assert done.stderr.count("\n") == 1


TEXTS = st.lists(st.tuples(st.sampled_from(["a b", "A  b", "$ab$", "c", "d"]),
                           st.sampled_from(["1", "2"])), max_size=12)


@given(TEXTS, st.sets(st.sampled_from(["ab", "c"])))
def test_every_problem_is_kept_once_or_counted(pairs, held):
    problems = [(i, Problem(text, answer, "openai/gsm8k"))
                for i, (text, answer) in enumerate(pairs)]
    counts = Counts()
    kept = select(problems, {key_of(text) for text in held}, counts)
    keys = [key_of(problem.text) for _, problem in kept]
    assert len(keys) == len(set(keys))
    assert not {key_of(text) for text in held} & set(keys)
    assert len(kept) + counts.repeated + counts.contradicted + counts.in_validation == len(pairs)
    assert len(choose(kept, 1, counts)) == min(1, len(kept))


def test_recipes_name_rules_that_exist():
    row = {"question": "q", "answer": "#### 1", "problem": "q", "solution": "\\boxed{1}",
           "level": "1", "type": "t", "subject": "s", "expected_answer": "1",
           "problem_source": "gsm8k"}
    for recipe in RECIPES.values():
        problem = recipe.convert(row)
        assert problem.data_source in RULES
        assert problem.prompt.startswith("q")
