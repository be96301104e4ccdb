"""Rewards: the #### rule, the last box, math-verify in processes that can be killed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbsbayes.errors import CBSDataError
from training.rewards import RULES, compute_score, last_boxed, number_after_hashes

ROOT = Path(__file__).resolve().parents[2]
GSM8K, MATH = "openai/gsm8k", "DigitalLearningGmbH/MATH-lighteval"
needs_math_verify = pytest.mark.skipif(importlib.util.find_spec("math_verify") is None,
                                       reason="math-verify is not installed")


class TestHashes:
    @pytest.mark.parametrize(("text", "number"), [
        ("so 3\n#### 42", "42"), ("####42", "42"), ("#### 1,234.50", "1234.5"), ("#### $18", "18"),
        ("#### -$7.", "-7"), ("#### −7", "-7"), ("#### .5", "0.5"), ("#### 20% more", "20"),
        ("#### 5 #### 6", "6"), ("#### 12 apples", "12"),
    ])
    def test_numbers_that_count(self, text, number):
        assert number_after_hashes(text) == Decimal(number)

    @pytest.mark.parametrize("text", [
        "42", "#### forty", "####", "#### 5 then ####", "#### 5.5/6", "#### 1/2", "#### 3 + 4",
        "#### 10^3", "#### 1.2.3", "### 42", "#### 1e9", "#### ٤٢",
    ])
    def test_what_is_no_number(self, text):
        assert number_after_hashes(text) is None

    def test_answers_are_compared_as_numbers(self):
        assert compute_score(GSM8K, "#### 1,000.0", "1000")["acc"] == 1
        assert compute_score(GSM8K, "#### 1000.1", "1000")["acc"] == 0

    def test_a_right_number_elsewhere_does_not_count(self):
        scored = compute_score(GSM8K, "The answer is 12.", "12")
        assert scored == {"score": 0, "acc": 0, "formatted": 0, "unchecked": 0}

    def test_format_score_is_kept_out_of_the_accuracy(self):
        wrong = compute_score(GSM8K, "#### 13", "12", format_score=0.1)
        assert wrong == {"score": 0.1, "acc": 0, "formatted": 1, "unchecked": 0}
        assert compute_score(GSM8K, "13", "12", format_score=0.1)["score"] == 0
        assert compute_score(GSM8K, "#### 12", "12", format_score=0.1)["score"] == 1

    @given(st.text(max_size=60))
    def test_any_text_scores_zero_or_one(self, text):
        scored = compute_score(GSM8K, text, "12", {"index": 1}, extra="ignored")
        assert scored["score"] in (0, 1)
        assert all(isinstance(value, float) for value in scored.values())

    @given(st.decimals(allow_nan=False, allow_infinity=False, places=2, min_value=-10**9,
                       max_value=10**9))
    def test_a_written_number_is_read_back(self, number):
        assert number_after_hashes(f"work #### {number:,f}") == number


class TestBoxes:
    @pytest.mark.parametrize(("text", "inside"), [
        (r"\boxed{1} or \boxed{ \frac{1}{2} }", r"\frac{1}{2}"), (r"\fbox{3}", None),
        (r"\boxed {x}", "x"), (r"\boxed{a\}b}", r"a\}b"), (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\fboxed{4}", "4"),
    ])
    def test_the_last_box_with_its_braces(self, text, inside):
        assert last_boxed(text) == inside

    @pytest.mark.parametrize("text", ["", "x = 2", r"\boxed{}", r"\boxed{1} \boxed{2", r"\boxed 5"])
    def test_no_closed_box_no_answer(self, text):
        assert last_boxed(text) is None
        assert compute_score(MATH, text, "2", format_score=0.1) == {
            "score": 0, "acc": 0, "formatted": 0, "unchecked": 0}

    @given(st.recursive(st.text("abc+^ ", max_size=4),
                        lambda inner: inner.map(lambda text: f"{{{text}}}x"), max_leaves=4))
    def test_balanced_text_comes_back(self, text):
        assert last_boxed(f"so \\boxed{{{text}}} .") == (text.strip() or None)

    def test_the_same_text_needs_no_algebra(self):
        assert compute_score(MATH, r"\boxed{ (1, 2) }", "(1,2)")["score"] == 1


class TestUnknown:
    def test_data_source(self):
        with pytest.raises(CBSDataError, match="no reward rule for data source 'tiny/add2'"):
            compute_score("tiny/add2", "1", "1")

    def test_ground_truth_of_another_rule(self):
        with pytest.raises(CBSDataError, match=r"ground truth 'x\^2' is no number"):
            compute_score(GSM8K, "#### 1", "x^2")

    def test_math_verify_missing_is_an_error_and_no_zero_reward(self, tmp_path):
        (tmp_path / "math_verify.py").write_text("raise ImportError('not here')")
        done = subprocess.run(
            [sys.executable, "-c", f"from training.rewards import compute_score as score\n"
             f"score({MATH!r}, '\\\\boxed{{1}}', '2')"], cwd=ROOT, text=True, capture_output=True,
            check=False, env={"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])})
        assert "CBSDataError: cannot check MATH answers (not here)" in done.stderr


@needs_math_verify
class TestMathVerify:
    @pytest.mark.parametrize(("truth", "answer", "right"), [
        (r"\frac{1}{2}", "0.5", True), (r"\frac12", r"\dfrac{1}{2}", True),
        (r"\frac12", "0.51", False), ("x^2+1", "1+x^2", True), ("3\\sqrt{2}", "\\sqrt{18}", True),
        ("[0,1)", "[0,1]", False), (r"\text{Evelyn}", "Evelyn", True), ("11{,}000", "11000", True),
        ("5", "__import__('os').getpid()", False), ("5", "\\notacommand{", False),
    ])
    def test_equal_answers(self, truth, answer, right):
        scored = compute_score(MATH, f"Thus \\boxed{{{answer}}}.", truth, format_score=0.2)
        assert scored["acc"] == right
        assert scored["score"] in ((1,) if right else (0.2, 0))

    def test_an_endless_answer_is_given_up_and_the_next_is_checked(self):
        endless = compute_score(MATH, r"\boxed{9^{9^{9^9}}}", "5", timeout=1)
        assert endless["unchecked"] == 1
        assert endless["score"] == 0
        assert compute_score(MATH, r"\boxed{4/8}", r"\frac{1}{2}")["acc"] == 1

    def test_many_threads_at_once_as_in_verl(self):
        scores = {}

        def score(i):
            scores[i] = compute_score(MATH, f"\\boxed{{{2 * i}/2}}", f"{i % 3}")["acc"]

        threads = [threading.Thread(target=score, args=(i,)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert scores == {i: float(i % 3 == i) for i in range(6)}


@pytest.mark.parametrize("source", sorted(RULES))
def test_every_rule_gives_the_same_keys(source):
    assert set(compute_score(source, "nothing", "1")) == {"score", "acc", "formatted", "unchecked"}
