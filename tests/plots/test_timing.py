"""Step times have their model beside them."""

from __future__ import annotations

import numpy as np
import pytest
from drawn import lines, points

from cbsbayes import plots
from cbsbayes.errors import CBSDataError


def test_every_timed_run_is_a_point_and_every_group_size_a_line(timed):
    ax = plots.plot_step_time(timed)
    shown = points(ax, "step-time")
    runs = np.stack([timed.sweep["total_batch"], timed.sweep["step_time"]]).T
    np.testing.assert_allclose(shown, runs[np.lexsort(runs.T[::-1])])
    assert lines(ax, "median")
    assert plots.plot_step_time(timed.sweep).get_ylabel() == "Seconds per trainer step"


def test_without_step_times_there_is_a_reason(one_axis):
    with pytest.raises(CBSDataError, match="no step time is known in any run"):
        plots.plot_step_time(one_axis)
