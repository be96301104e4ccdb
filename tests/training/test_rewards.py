"""Rewards: the #### rule, the last box, math-verify in processes that can be killed."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbsbayes.errors import CBSDataError
from training.rewards import RULES, compute_score, last_boxed, number_after_hashes

GSM8K, MATH = "openai/gsm8k", "DigitalLearningGmbH/MATH-lighteval"


@pytest.mark.parametrize(("text", "number"), [
    ("so 3\n#### 42", "42"), ("####42", "42"), ("#### 1,234.50", "1234.5"), ("#### $18", "18"),
    ("#### -$7.", "-7"), ("#### −7", "-7"), ("#### .5", "0.5"), ("#### 20% more", "20"),
    ("#### 5 #### 6", "6"), ("#### 12 apples", "12"), ("42", None), ("#### forty", None),
    ("####", None), ("#### 5 then ####", None), ("#### 5.5/6", None), ("#### 3 + 4", None),
    ("#### 10^3", None), ("#### 1.2.3", None), ("### 42", None), ("#### 1e9", None),
    ("#### ٤٢", None)])
def test_the_number_after_hashes(text, number):
    assert number_after_hashes(text) == (None if number is None else Decimal(number))


@pytest.mark.parametrize(("text", "score", "formatted"), [
    ("#### 12", 1, 1), ("#### 12.0", 1, 1), ("#### 13", 0.1, 1), ("13", 0, 0),
    ("The answer is 12.", 0, 0)])
def test_the_format_s_score_is_kept_out_of_the_accuracy(text, score, formatted):
    assert compute_score(GSM8K, text, "12", format_score=0.1) == {
        "score": score, "acc": float(score == 1), "formatted": formatted, "unchecked": 0}


@given(st.text(max_size=60))
def test_any_text_scores_zero_or_one(text):
    scored = compute_score(GSM8K, text, "12", {"index": 1}, extra="ignored")
    assert scored["score"] in (0, 1)
    assert all(isinstance(value, float) for value in scored.values())


@given(st.decimals(allow_nan=False, allow_infinity=False, places=2, min_value=-10**9,
                   max_value=10**9))
def test_a_written_number_is_read_back(number):
    assert number_after_hashes(f"work #### {number:,f}") == number


@pytest.mark.parametrize(("text", "inside"), [
    (r"\boxed{1} or \boxed{ \frac{1}{2} }", r"\frac{1}{2}"), (r"\fbox{3}", None),
    (r"\boxed {x}", "x"), (r"\boxed{a\}b}", r"a\}b"), (r"\boxed{\{1,2\}}", r"\{1,2\}"),
    (r"\fboxed{4}", "4"), ("", None), (r"\boxed{}", None), (r"\boxed{1} \boxed{2", None)])
def test_the_last_box_with_its_braces(text, inside):
    assert last_boxed(text) == inside
    if inside is None:
        assert not any(compute_score(MATH, text, "2", format_score=0.1).values())


@given(st.recursive(st.text("abc+^ ", max_size=4),
                    lambda inner: inner.map(lambda text: f"{{{text}}}x"), max_leaves=4))
def test_balanced_text_comes_back(text):
    assert last_boxed(f"so \\boxed{{{text}}} .") == (text.strip() or None)


@pytest.mark.parametrize("source", sorted(RULES))
def test_every_rule_gives_the_same_keys(source):
    assert set(compute_score(source, "nothing", "1")) == {"score", "acc", "formatted", "unchecked"}


@pytest.mark.parametrize(("source", "truth", "message"), [
    ("tiny/add2", "1", "no reward rule for data source 'tiny/add2'"),
    (GSM8K, "x^2", r"ground truth 'x\^2' is no number")])
def test_what_no_rule_knows(source, truth, message):
    with pytest.raises(CBSDataError, match=message):
        compute_score(source, "#### 1", truth)


def test_math_verify_missing_is_an_error_and_no_zero_reward(tmp_path, root):
    (tmp_path / "math_verify.py").write_text("raise ImportError('not here')")
    done = subprocess.run(
        [sys.executable, "-c", f"from training.rewards import compute_score as score\n"
         f"score({MATH!r}, '\\\\boxed{{1}}', '2')"], cwd=root, text=True, capture_output=True,
        check=False, env={"PYTHONPATH": os.pathsep.join([str(tmp_path), str(root)])})
    assert "CBSDataError: cannot check MATH answers (not here)" in done.stderr


@pytest.mark.parametrize(("truth", "answer", "right"), [
    (r"\frac{1}{2}", "0.5", True), (r"\frac12", r"\dfrac{1}{2}", True), (r"\frac12", "0.51", False),
    ("x^2+1", "1+x^2", True), ("3\\sqrt{2}", "\\sqrt{18}", True), ("[0,1)", "[0,1]", False),
    (r"\text{Evelyn}", "Evelyn", True), ("11{,}000", "11000", True),
    ("5", "__import__('os').getpid()", False), ("5", "\\notacommand{", False)])
def test_equal_answers(truth, answer, right):
    pytest.importorskip("math_verify")
    scored = compute_score(MATH, f"Thus \\boxed{{{answer}}}.", truth, format_score=0.2)
    assert scored["acc"] == right
    assert scored["score"] in ((1,) if right else (0.2, 0))


def test_an_endless_answer_is_given_up_and_many_threads_are_checked_at_once():
    pytest.importorskip("math_verify")
    endless = compute_score(MATH, r"\boxed{9^{9^{9^9}}}", "5", timeout=1)
    assert (endless["unchecked"], endless["score"]) == (1, 0)
    with ThreadPoolExecutor(6) as pool:
        scores = list(pool.map(lambda i: compute_score(MATH, f"\\boxed{{{2 * i}/2}}", f"{i % 3}"),
                               range(6)))
    assert [scored["acc"] for scored in scores] == [1, 1, 1, 0, 0, 0]
