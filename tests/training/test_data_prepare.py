"""Raw rows become verl's parquet: answers, copies, held-out problems, damaged files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

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

ROOT = Path(__file__).resolve().parents[2]
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


def jsonl(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


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


def failure(capsys, *args):
    assert main([str(arg) for arg in args]) == 1
    said = capsys.readouterr().err
    assert said.startswith("data.prepare: ")
    assert said.count("\n") == 1
    return said


class TestGsm8k:
    def test_rows_are_those_verl_reads(self, gsm8k, out):
        assert main(["gsm8k", "--from", str(gsm8k), "-o", str(out)]) == 0
        table = parquet.read_table(out / "train.parquet")
        assert table.column_names == ["data_source", "prompt", "ability", "reward_model",
                                      "extra_info"]
        first = table.to_pylist()[0]
        assert first["data_source"] == "openai/gsm8k"
        assert first["prompt"][0]["role"] == "user"
        assert first["prompt"][0]["content"].startswith(GSM8K_TRAIN[0]["question"])
        assert "####" in first["prompt"][0]["content"]
        assert first["reward_model"] == {"style": "rule", "ground_truth": "12"}
        assert first["extra_info"]["index"] == 0
        assert first["extra_info"]["split"] == "train"

    def test_counts_say_what_became_of_every_row(self, gsm8k, out, capsys):
        main(["gsm8k", "--from", str(gsm8k), "-o", str(out)])
        said = capsys.readouterr().out.splitlines()
        assert said[0].endswith("train.parquet: 7 read, 1 without answer, 1 repeated, "
                                "2 contradicted, 1 in validation, 2 written")
        assert said[1].endswith("test.parquet: 2 read, 2 written")
        counts = json.loads((out / "prepare.json").read_text())["counts"]["train"]
        assert counts.pop("read") == sum(counts.values())
        answers = [row["reward_model"]["ground_truth"] for row in rows_of(out / "train.parquet")]
        assert answers == ["12", "2500"]

    def test_the_same_raw_files_give_the_same_bytes(self, gsm8k, out, tmp_path):
        for folder in (out, tmp_path / "again"):
            main(["gsm8k", "--from", str(gsm8k), "-o", str(folder)])
        for name in ("train.parquet", "test.parquet", "prepare.json"):
            assert (out / name).read_bytes() == (tmp_path / "again" / name).read_bytes()

    def test_parquet_shards_give_what_jsonl_gives(self, gsm8k, out, tmp_path):
        shards = tmp_path / "hub" / "main"
        shards.mkdir(parents=True)
        (tmp_path / "hub" / "socratic").mkdir()
        for split, rows in (("train", GSM8K_TRAIN), ("test", GSM8K_TEST)):
            for i, part in enumerate((rows[:1], rows[1:])):
                table = pa.Table.from_pylist(part)
                parquet.write_table(table, shards / f"{split}-0000{i}-of-00002.parquet")
                parquet.write_table(table, tmp_path / "hub/socratic" / f"{split}.parquet")
        main(["gsm8k", "--from", str(gsm8k), "-o", str(out)])
        main(["gsm8k", "--from", str(tmp_path / "hub"), "-o", str(tmp_path / "other")])
        for name in ("train.parquet", "test.parquet"):
            assert (out / name).read_bytes() == (tmp_path / "other" / name).read_bytes()

    def test_fewer_items_are_the_same_ones_in_any_order(self, gsm8k, out, tmp_path):
        main(["gsm8k", "--from", str(gsm8k), "-o", str(out), "--train-items", "1"])
        jsonl(gsm8k / "train.jsonl", GSM8K_TRAIN[::-1])
        again = tmp_path / "again"
        main(["gsm8k", "--from", str(gsm8k), "-o", str(again), "--train-items", "1"])
        texts = [[key_of(row["extra_info"]["question"])
                  for row in rows_of(folder / "train.parquet")] for folder in (out, again)]
        assert len(texts[0]) == 1
        assert texts[0] == texts[1]

    def test_every_ground_truth_scores_one_under_its_own_rule(self, gsm8k, out):
        main(["gsm8k", "--from", str(gsm8k), "-o", str(out)])
        for row in rows_of(out / "train.parquet") + rows_of(out / "test.parquet"):
            truth = row["reward_model"]["ground_truth"]
            assert compute_score(row["data_source"], f"So #### {truth}", truth)["score"] == 1


class TestMath:
    def test_problem_files_in_folders_are_read_in_natural_order(self, tmp_path, out):
        for split in ("train", "test"):
            for number in (2, 10, 1):
                file = tmp_path / "MATH" / split / "prealgebra" / f"{number}.json"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(json.dumps({**MATH_ROW, "problem": f"{split} {number}?"}))
        assert main(["math", "--from", str(tmp_path / "MATH"), "-o", str(out)]) == 0
        rows = rows_of(out / "train.parquet")
        assert [row["extra_info"]["question"] for row in rows] == ["train 1?", "train 2?",
                                                                   "train 10?"]
        assert {row["reward_model"]["ground_truth"] for row in rows} == {"\\frac{1}{2}"}
        assert rows[0]["extra_info"]["subject"] == "Prealgebra"
        assert rows[0]["prompt"][0]["content"].endswith("within \\boxed{}.")

    def test_math500_is_held_out_of_math(self, tmp_path, out):
        jsonl(tmp_path / "five" / "test.jsonl", [
            {"problem": MATH_ROW["problem"], "answer": "\\frac{1}{2}", "subject": "Prealgebra",
             "level": 1, "solution": "", "unique_id": "a"}])
        jsonl(tmp_path / "raw" / "train.jsonl", [MATH_ROW, {**MATH_ROW, "problem": "Another?"}])
        jsonl(tmp_path / "raw" / "test.jsonl", [{**MATH_ROW, "problem": "A third?"}])
        assert main(["math500", "--from", str(tmp_path / "five"), "-o", str(tmp_path / "v")]) == 0
        assert not (tmp_path / "v" / "train.parquet").exists()
        assert main(["math", "--from", str(tmp_path / "raw"), "-o", str(out),
                     "--validation", str(tmp_path / "v" / "test.parquet")]) == 0
        (row,) = rows_of(out / "train.parquet")
        assert row["extra_info"]["question"] == "Another?"


class TestOpenMathInstruct2:
    ROWS = (
        {"problem": "How many is 6 + 1?", "generated_solution": "7", "expected_answer": "7",
         "problem_source": "augmented_gsm8k"},
        {"problem": "How many is 6 + 1?", "generated_solution": "Seven", "expected_answer": "7",
         "problem_source": "augmented_gsm8k"},
        {"problem": "Held out: what is 2 + 2?", "generated_solution": "", "expected_answer": "4",
         "problem_source": "gsm8k"},
        {"problem": "How many?", "generated_solution": "", "expected_answer": "a few",
         "problem_source": "augmented_gsm8k"},
        {"problem": "Expand $(x+1)^2$.", "generated_solution": "", "expected_answer": "x^2+2x+1",
         "problem_source": "augmented_math"},
    )

    @pytest.fixture
    def raw(self, tmp_path):
        folder = tmp_path / "omi" / "data"
        folder.mkdir(parents=True)
        table = pa.Table.from_pylist(list(self.ROWS))
        parquet.write_table(table, folder / "train_1M-00000-of-00001.parquet")
        return folder.parent

    @pytest.fixture
    def validation(self, gsm8k, tmp_path):
        main(["gsm8k", "--from", str(gsm8k), "-o", str(tmp_path / "gsm8k")])
        return tmp_path / "gsm8k" / "test.parquet"

    def test_each_problem_once_with_the_format_of_the_set_it_derives_from(
            self, raw, validation, out, capsys):
        assert main(["openmathinstruct2", "--from", str(raw), "--split", "train_1M", "-o",
                     str(out), "--validation", str(validation)]) == 0
        assert capsys.readouterr().out.splitlines()[-1].endswith(
            "5 read, 1 without answer, 1 repeated, 1 in validation, 2 written")
        word, algebra = rows_of(out / "train.parquet")
        assert word["data_source"] == "nvidia/OpenMathInstruct-2/gsm8k"
        assert "####" in word["prompt"][0]["content"]
        assert word["extra_info"]["derived_from"] == "augmented_gsm8k"
        assert algebra["data_source"] == "nvidia/OpenMathInstruct-2/math"
        assert "\\boxed" in algebra["prompt"][0]["content"]
        assert {word["data_source"], algebra["data_source"]} <= RULES.keys()

    def test_what_derives_from_one_set(self, raw, validation, out):
        main(["openmathinstruct2", "--from", str(raw), "--split", "train_1M", "-o", str(out),
              "--validation", str(validation), "--derived-from", "gsm8k"])
        (row,) = rows_of(out / "train.parquet")
        assert row["reward_model"]["ground_truth"] == "7"

    def test_needs_to_know_what_will_be_validated_on(self, raw, out, capsys):
        said = failure(capsys, "openmathinstruct2", "--from", raw, "-o", out)
        assert "--validation" in said
        assert not out.exists()


class TestBadInput:
    def test_no_such_folder(self, tmp_path, out, capsys):
        assert "does not exist" in failure(capsys, "gsm8k", "--from", tmp_path / "no", "-o", out)

    def test_no_such_split_lists_what_is_there(self, gsm8k, out, capsys):
        said = failure(capsys, "gsm8k", "--from", gsm8k, "-o", out, "--split", "train_9M")
        assert "'train_9M'" in said
        assert "test, train, train_socratic" in said

    def test_two_formats_of_one_split(self, gsm8k, out, capsys):
        parquet.write_table(pa.Table.from_pylist(GSM8K_TRAIN), gsm8k / "train.parquet")
        assert "as .jsonl and as .parquet" in failure(capsys, "gsm8k", "--from", gsm8k, "-o", out)

    @pytest.mark.parametrize(("content", "message"), [
        ('{"question": "a", "answer": "#### 1"}\n{"question": "b", "ans', "line 2: no valid JSON"),
        ('{"question": "a"}\n', "row 1: no answer"),
        ('{"question": "a", "answer": 5}\n', "answer is int, not text"),
        ('5\n', "int instead of an object"),
        ('{"question": "a", "answer": "none"}\n', "nothing is left of gsm8k, train"),
        ("", "nothing is left of gsm8k, train"),
        (b"\xff\xfe", "not UTF-8"),
    ])
    def test_damaged_rows(self, gsm8k, out, capsys, content, message):
        raw = content if isinstance(content, bytes) else content.encode()
        (gsm8k / "train.jsonl").write_bytes(raw)
        assert message in failure(capsys, "gsm8k", "--from", gsm8k, "-o", out)
        assert not out.exists()

    def test_cut_off_parquet(self, gsm8k, out, capsys):
        file = gsm8k / "train.parquet"
        parquet.write_table(pa.Table.from_pylist(GSM8K_TRAIN), file)
        file.write_bytes(file.read_bytes()[:-20])
        (gsm8k / "train.jsonl").unlink()
        assert "no readable parquet" in failure(capsys, "gsm8k", "--from", gsm8k, "-o", out)

    def test_other_content_is_not_overwritten_unasked(self, gsm8k, out, capsys):
        main(["gsm8k", "--from", str(gsm8k), "-o", str(out)])
        before = (out / "train.parquet").read_bytes()
        assert main(["gsm8k", "--from", str(gsm8k), "-o", str(out)]) == 0  # the same content
        jsonl(gsm8k / "train.jsonl", GSM8K_TRAIN[:1])
        capsys.readouterr()
        assert "--overwrite" in failure(capsys, "gsm8k", "--from", gsm8k, "-o", out)
        assert (out / "train.parquet").read_bytes() == before
        assert main(["gsm8k", "--from", str(gsm8k), "-o", str(out), "--overwrite"]) == 0
        assert (out / "train.parquet").read_bytes() != before

    def test_a_failed_write_leaves_nothing(self, gsm8k, out, capsys):
        (out / "test.parquet").mkdir(parents=True)  # cannot be replaced by a file
        code = main(["gsm8k", "--from", str(gsm8k), "-o", str(out), "--overwrite"])
        assert code == 1
        assert not list(out.glob("*.tmp"))
        assert not list(out.glob(".*.tmp"))
        assert not (out / "prepare.json").exists()

    def test_validation_file_of_another_kind(self, gsm8k, out, tmp_path, capsys):
        pd.DataFrame({"x": [1]}).to_parquet(tmp_path / "x.parquet")
        args = ("gsm8k", "--from", gsm8k, "-o", out, "--validation")
        assert "was not written by" in failure(capsys, *args, tmp_path / "x.parquet")
        assert "no validation file" in failure(capsys, *args, tmp_path / "y.parquet")

    @pytest.mark.parametrize(("extra", "message"), [
        (["gsm8k", "--derived-from", "math"], "--derived-from"),
        (["math500", "--train-items", "3"], "--train-items does not fit math500"),
        (["gsm8k", "--from", ".", "--revision", "abc"], "give one of them"),
    ])
    def test_options_that_do_not_fit(self, extra, message, out, capsys):
        assert message in failure(capsys, *extra, "-o", out)


class TestHub:
    def run(self, code, out):
        return subprocess.run(
            [sys.executable, "-c", f"import sys; {code}\nfrom data.prepare.__main__ import main\n"
             f"sys.exit(main(['gsm8k', '-o', {str(out)!r}]))"],
            cwd=ROOT, capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1",
                 "HF_HOME": str(out.parent / "hf")})

    def test_without_the_package_a_line_says_so(self, out):
        done = self.run("sys.modules['datasets'] = None", out)
        assert done.returncode == 1
        assert "needs the package 'datasets'" in done.stderr
        assert done.stderr.count("\n") == 1

    def test_without_the_hub_a_line_says_so(self, out):
        pytest.importorskip("datasets")
        done = self.run("", out)
        assert done.returncode == 1
        assert "the hub did not give openai/gsm8k" in done.stderr.splitlines()[-1]
        assert not out.exists()

    def test_nothing_heavy_is_imported_to_prepare(self, gsm8k, out):
        code = ("import sys; from data.prepare.__main__ import main; "
                f"main(['gsm8k', '--from', {str(gsm8k)!r}, '-o', {str(out)!r}]); "
                "print({'torch', 'verl', 'pymc', 'arviz', 'datasets'} & set(sys.modules))")
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True,
                              text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
        assert done.stdout.splitlines()[-1] == "set()"


class TestSelect:
    texts = st.lists(st.tuples(st.sampled_from(["a b", "A  b", "$ab$", "c", "d"]),
                               st.sampled_from(["1", "2"])), max_size=12)

    @given(texts, st.sets(st.sampled_from(["ab", "c"])))
    def test_every_row_is_accounted_for(self, pairs, held):
        problems = [(i, Problem(text, answer, "openai/gsm8k"))
                    for i, (text, answer) in enumerate(pairs)]
        counts = Counts()
        kept = select(problems, {key_of(text) for text in held}, counts)
        keys = [key_of(problem.text) for _, problem in kept]
        assert len(keys) == len(set(keys))
        assert not {key_of(text) for text in held} & set(keys)
        assert len(kept) + counts.repeated + counts.contradicted + counts.in_validation == \
            len(pairs)
        assert len(choose(kept, 1, counts)) == min(1, len(kept))

    def test_recipes_name_rules_that_exist(self):
        row = {"question": "q", "answer": "#### 1", "problem": "q", "solution": "\\boxed{1}",
               "level": "1", "type": "t", "subject": "s", "expected_answer": "1",
               "problem_source": "gsm8k"}
        for recipe in RECIPES.values():
            problem = recipe.convert(row)
            assert problem.data_source in RULES
            assert problem.prompt.startswith("q")
