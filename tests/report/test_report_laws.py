"""Which law predicts best is said from the table, with what is not told apart."""

from __future__ import annotations

import numpy as np
import pandas as pd
from page_fixture import stand_in_fit

from cbsbayes.models.laws import LAWS
from cbsbayes.report.laws import law_sentences
from cbsbayes.report.page import render_page


def table(**differences):
    return pd.DataFrame({"law": list(differences), "elpd": [-100 + d for d, _ in
                                                           differences.values()],
                         "elpd_diff": [d for d, _ in differences.values()],
                         "dse": [e for _, e in differences.values()]})


def test_forms_are_ranked_against_the_best():
    told = law_sentences(table(two_axis_free_plain=(-7.5, 3.0), two_axis_free=(0.0, 0.0),
                               total=(-41.4, 10.8), two_axis_sqrt=(-1.1, 2.4)))
    assert told == [
        "Left-out runs are predicted best by two_axis_free: rollout noise in 1/(G − 1), "
        "exponent free.",
        "two_axis_sqrt (rollout noise in 1/(G − 1), exponent ½): −1.1 ± 2.4 in elpd, not told "
        "apart.",
        "two_axis_free_plain (rollout noise in 1/G, exponent free): −7.5 ± 3.0 in elpd, predicts "
        "worse.",
        "total (prompts and rollouts pooled as samples, exponent 1): −41.4 ± 10.8 in elpd, "
        "predicts worse."]


def test_one_law_is_no_comparison_and_a_missing_number_is_said():
    assert law_sentences(table(total=(0.0, 0.0))) == []
    assert law_sentences(table(two_axis=(0.0, 0.0), power=(np.nan, np.nan)))[1] == (
        "power could not be compared.")


def test_every_law_has_words():
    told = law_sentences(table(**{name: (-float(k), 0.1) for k, name in enumerate(LAWS)}))
    assert len(told) == len(LAWS)
    assert not [sentence for sentence in told if "another form" in sentence]


def test_the_page_says_it():
    fit = stand_in_fit()
    page = render_page(fit, [])
    assert all(sentence in page for sentence in law_sentences(fit.law_table))
    assert "predicts worse" in page
