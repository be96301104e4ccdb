"""Definitions of a critical batch in the table of a fit: each against its own condition."""

from __future__ import annotations

import numpy as np

from cbsbayes.posterior.definitions import OVERHEAD_COLUMNS, overhead_table


def test_the_table_has_the_critical_batch_of_the_quantity_table(fit):
    table = overhead_table(fit)
    assert list(table.columns) == OVERHEAD_COLUMNS
    assert "least_20" not in set(table["definition"])  # only exponent one has least samples
    twice = table[table["definition"] == "steps_2x"].set_index(["at", "threshold"])
    known = fit.cbs[fit.cbs["quantity"] == "cbs_prompts"].set_index(["at", "threshold"])
    assert set(twice.index) == set(known.index)
    for name in ("median", "ci_lower", "ci_upper"):
        np.testing.assert_allclose(twice[name], known.loc[twice.index, name], rtol=1e-9)
    assert (twice["status"] == known.loc[twice.index, "status"]).all()
    assert (twice["ratio"] == 1).all()
    gain = table[table["definition"] == "doubling_10"].set_index(["at", "threshold"])
    batch = fit.cbs[fit.cbs["quantity"] == "batch_at_gain"].assign(
        at=lambda t: t["at"].str.removeprefix("gain=0.1,")).set_index(["at", "threshold"])
    np.testing.assert_allclose(gain["median"], batch.loc[gain.index, "median"], rtol=1e-9)


def test_every_definition_of_exponent_one_follows_from_one_scale(one_axis):
    table = overhead_table(one_axis)
    wide = table.pivot_table(index="threshold", columns="definition", values="median")
    anchor = table["anchor"].dropna().unique()
    np.testing.assert_allclose(wide["steps_1.1x"], 10 * wide["steps_2x"], rtol=1e-6)
    np.testing.assert_allclose(wide["least_20"], 0.2 * wide["steps_2x"], rtol=1e-6)
    np.testing.assert_allclose(wide["doubling_10"], 4 * wide["steps_2x"], rtol=1e-6)
    np.testing.assert_allclose(wide["linear_20"], 0.2 * wide["steps_2x"] + 1.2 * anchor, rtol=1e-6)
    assert set(table["condition"]) >= {"S = 2 S_min", "B·S(B) = 1.2 × least B·S",
                                       "S(2B) = 0.9 S(B)"}
