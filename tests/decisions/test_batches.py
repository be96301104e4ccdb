"""Where batches lie, and draws as columns."""

from __future__ import annotations

import numpy as np
import pytest
from fit_fixture import make_fit, make_one_axis_fit

from cbsbayes.decisions.batches import (
    batches_run,
    find_fits,
    fitted_threshold,
    interval_columns,
    middle_threshold,
    range_of,
    share_least,
)
from cbsbayes.errors import CBSDataError
from cbsbayes.sweep.output_folder import output_folder

TRIED = np.array([(32, 8), (64, 8), (128, 2), (128, 8), (128, 16)], dtype=float)


@pytest.mark.parametrize(("batch", "where"), [
    ((64, 8), "tried"), ((64, 4), "inside"), ((128, 4), "inside"), ((32, 16), "inside"),
    ((16, 8), "extrapolated"), ((128, 32), "extrapolated"), ((256, 1), "extrapolated"),
    ((32, 2), "extrapolated")])  # the last: 64 samples, fewer than ever
def test_prompts_rollouts_and_samples_have_a_range(batch, where):
    assert range_of([batch], TRIED).tolist() == [where]


@pytest.mark.parametrize(("total", "where"), [
    (64, "tried"), (100, "inside"), (32, "extrapolated"), (300, "extrapolated")])
def test_one_axis_has_one(total, where):
    assert range_of([(total, 1)], np.array([(64.0, 1), (256.0, 1)])).tolist() == [where]


def test_batches_of_runs_are_there_once():
    assert len(batches_run(make_fit().crossings)) == 16
    one = batches_run(make_one_axis_fit().crossings)
    assert one[:, 0].tolist() == [2.0**k for k in range(6, 14)]
    assert (one[:, 1] == 1).all()


def test_an_interval_of_infinite_draws_has_infinite_ends_and_a_finite_middle():
    found = interval_columns("hours", np.array([1.0, 2.0, 3.0, np.inf, np.inf])[:, None], 0.9)
    assert [values[0] for values in found.values()] == [3.0, 1.0, np.inf]
    assert list(found) == ["hours", "hours_lower", "hours_upper"]


def test_the_least_is_counted_where_one_arrives():
    shares = share_least(np.array([[1.0, 2.0], [2.0, 1.0], [3.0, 5.0], [np.inf, np.inf]]))
    np.testing.assert_allclose(shares, [0.5, 0.25])


def test_thresholds_of_a_fit():
    fit = make_fit()
    assert middle_threshold(fit) == 0.8
    assert fitted_threshold(fit, 0.7) == 0.7
    with pytest.raises(CBSDataError, match=r"threshold 0.75 was not fitted; fitted: 0.5, 0.7"):
        fitted_threshold(fit, 0.75)


def test_of_a_folder_only_fits_that_its_manifest_names_are_found(tmp_path):
    out = tmp_path / "out"
    with output_folder(out, "cbsbayes.fit") as folder:
        for name in ("a", "b"):
            (folder / name).mkdir()
            (folder / name / "fit.nc").touch()
    (out / "of_last_week").mkdir()
    (out / "of_last_week" / "fit.nc").touch()
    assert find_fits([out]) == [out / "a" / "fit.nc", out / "b" / "fit.nc"]
    (out / "manifest.json").unlink()
    assert len(find_fits([out])) == 3
