"""Least squares for S(B), shown beside the posterior.

Two methods (`cbsbayes.baselines.table`), on the total batch, on prompts and on rollouts:

`least_squares`
    Common practice: the first crossing of each run, runs that never cross dropped,
    S = S_min (1 + B_noise/B) fitted to raw S per threshold. Its faults are kept.
`log_least_squares`
    The same law fitted fairly: log S at interval midpoints of isotonic crossings, with a
    t-interval and a bootstrap over runs. `cbsbayes.baselines.least_squares` does this for any law.
"""
