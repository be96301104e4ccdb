"""Text in plain English from tables and templates."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd

from cbsbayes.models.laws import LAWS, get_law
from cbsbayes.report.text import at_text, formula, parse_at, plain, quantity_label, section_text


def test_what_is_held_fixed_is_put_into_words():
    assert at_text("n_prompts=128,n_rollouts=8") == "128 prompts × 8 rollouts"
    assert at_text("n_rollouts=8,gain=0.1").replace("\N{NO-BREAK SPACE}", " ") == (
        "8 rollouts, saving 10 %")
    assert at_text("{x}={0.__class__}") == "{x} = {0.__class__}"
    assert at_text(np.nan) == at_text("") == ""
    assert parse_at(" n_prompts=4 ") == {"n_prompts": "4"}


def test_cells_of_any_kind_are_one_line_of_text():
    values = [None, np.nan, pd.NA, True, np.int64(1200), 0.7, "x\ny", np.bool_(False)]
    assert [plain(v) for v in values] == ["", "", "", "yes", "1,200", "0.7", r"x\ny", "no"]


def test_labels_and_formulas():
    assert quantity_label("cbs_prompts") == "Prompt CBS"
    assert quantity_label("other") == "other"
    assert formula(get_law("two_axis_free")).endswith("(n_rollouts − 1))/n_prompts)^α")


def laws(**differences):
    rows = pd.DataFrame([{"law": law, "elpd_diff": d, "dse": e}
                         for law, (d, e) in differences.items()])
    facts = SimpleNamespace(fit=SimpleNamespace(law_table=rows))
    title, intro, said = section_text("laws", facts=facts)
    assert (title, intro.split(" ")[0]) == ("Other laws", "The")
    return said


def test_laws_are_ranked_against_the_best():
    assert laws(total=(-41.4, 10.8), two_axis_free=(0.0, 0.0), two_axis_sqrt=(-1.1, 2.4)) == [
        "Left-out runs are predicted best by two_axis_free.",
        "two_axis_sqrt predicts as well, within two standard errors: elpd −1.1 ± 2.4.",
        "total predicts worse: elpd −41.4 ± 10.8."]
    assert laws(total=(0.0, 0.0)) == ["No other law was fitted to compare with."]
    assert laws(two_axis=(0.0, 0.0), power=(np.nan, np.nan))[1] == "power could not be compared."
    assert len(laws(**{name: (-float(k), 0.1) for k, name in enumerate(LAWS)})) == len(LAWS)


def test_least_squares_is_told_beside_the_fit():
    row = {"axis": "prompts", "at": "n_rollouts=8",
           "least_squares": {"scale": None, "n_used": 2, "n_dropped": 1},
           "posterior": {"scale": "60 (50–70)", "n_used": 21, "n_dropped": 0}}
    facts = SimpleNamespace(target="accuracy 0.7", compared=row)
    assert section_text("comparison", facts=facts)[2] == [
        "Noise scale at accuracy 0.7, along prompts at 8 rollouts: least squares could not be "
        "fitted (2 runs, 1 dropped); this fit 60 (50–70) (21 runs)."]
    facts.compared = None
    assert "share no noise scale" in section_text("comparison", facts=facts)[2][0]


def test_a_section_without_an_introduction_has_none():
    assert section_text("curves") == ("Updates against the batch", "", [])
