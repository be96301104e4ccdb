"""Least squares for S(B), beside which the posterior is shown.

Two methods, on the total batch, on prompts and on rollouts:

`least_squares`
    What is usually done: the first crossing of each run, runs that never cross dropped,
    S = S_min (1 + B_noise/B) fitted to raw S per threshold. It keeps its faults.
`log_least_squares`, `log_least_squares_two_axis`
    The same laws fitted fairly: log S at interval midpoints of isotonic crossings, with a
    t-interval and a bootstrap over runs.
"""

from __future__ import annotations

from cbsbayes.baselines.least_squares import least_squares
from cbsbayes.baselines.log_space import (
    interval_midpoints,
    log_least_squares,
    log_least_squares_two_axis,
)
from cbsbayes.baselines.result import BaselineFit, TwoAxisFit
from cbsbayes.baselines.table import comparison_rows, fit_baselines

__all__ = ["BaselineFit", "TwoAxisFit", "comparison_rows", "fit_baselines", "interval_midpoints",
           "least_squares", "log_least_squares", "log_least_squares_two_axis"]
