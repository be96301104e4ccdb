"""Least squares for S(B), shown beside the posterior.

Two methods, on the total batch, on prompts and on rollouts:

`least_squares`
    Common practice: the first crossing of each run, runs that never cross dropped,
    S = S_min (1 + B_noise/B) fitted to raw S per threshold. Its faults are kept.
`log_least_squares`
    The same law fitted fairly: log S at interval midpoints of isotonic crossings, with a
    t-interval and a bootstrap over runs. `fit_log_law` does this for any law.
"""

from __future__ import annotations

from cbsbayes.baselines.least_squares import BaselineFit, least_squares
from cbsbayes.baselines.log_space import fit_log_law, interval_midpoints, log_least_squares
from cbsbayes.baselines.table import (
    comparison_rows,
    comparison_table,
    fit_baselines,
    with_comparison,
)

__all__ = ["BaselineFit", "comparison_rows", "comparison_table", "fit_baselines", "fit_log_law",
           "interval_midpoints", "least_squares", "log_least_squares", "with_comparison"]
