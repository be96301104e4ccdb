"""Tables of crossings: bounds as given, and every refusal."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest

from cbsbayes.errors import CBSDataError
from cbsbayes.logs.columns import Table
from cbsbayes.logs.crossings_table import is_crossings, read_crossings

ROW = {"run": "a", "n_prompts": 8, "n_rollouts": 4, "threshold": 0.5}
BOUNDS = {"steps_lower": 25, "steps_upper": 50}


def crossings(*rows):
    return read_crossings(Table(pd.DataFrame([{**ROW, **row} for row in rows]), "t.csv"))


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
    assert one.settings == {"n_prompts": 8, "n_rollouts": 4}
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
        ({"steps": 0}, "steps is 0; valid: a number above 0"),
        ({"steps": -1}, "steps is -1; valid: a number above 0"),
        ({"steps": "inf"}, "steps is inf; .* give steps_lower .* and steps_upper = inf instead"),
        ({"steps": "never"}, "steps is 'never'; valid: a number, or blank"),
        ({**BOUNDS, "steps_lower": -1}, "steps_lower is -1; valid: a number from 0"),
        ({**BOUNDS, "steps_lower": ""}, "steps_lower is nan; valid: a number from 0"),
        ({**BOUNDS, "steps_upper": ""}, "steps_upper is nan; valid: at least steps_lower"),
        ({**BOUNDS, "steps_upper": 10}, "steps_upper is 10; valid: at least steps_lower"),
        ({"steps_lower": 0, "steps_upper": 0}, "steps_upper is 0; valid: .* above 0"),
        ({**BOUNDS, "threshold": ""}, "threshold is nan; valid: a finite number"),
        ({**BOUNDS, "n_prompts": 0}, "n_prompts is 0; valid: a whole number above 0"),
        ({**BOUNDS, "steps": 30}, "has both steps and steps_lower, steps_upper"),
        ({"steps_lower": 3}, "no column 'steps_upper'"),
        ({}, "no column 'steps_lower'"),
    ],
    ids=str,
)
def test_impossible_rows(row, message):
    with pytest.raises(CBSDataError, match=f"^t.csv.*{message}"):
        crossings(row)


def test_threshold_twice_in_one_run():
    with pytest.raises(CBSDataError, match=r"data row 2: run 'a' has threshold 0\.5 twice"):
        crossings(BOUNDS, BOUNDS)


def test_kind_is_told_by_the_columns():
    def kind(*columns):
        return is_crossings(Table(pd.DataFrame(columns=columns), "t"))

    assert kind("run", "threshold", "steps")
    assert kind("run", "steps_lower")
    assert not kind("run", "step", "accuracy", "threshold")
    assert not kind("run", "placement")


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
        at = int(run.settings["total_batch"]), run.settings["model"]
        assert run.crossings["steps_lower"].tolist() == [frame.loc[at]]
        assert run.crossings["threshold"].tolist() == [found["goal_loss"][at[1]]]
