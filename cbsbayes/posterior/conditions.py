r"""What makes a batch "critical": conditions on log S, to be solved for the batch.

Along a line through the batches, with b the batch that moves
(`cbsbayes.posterior.surface.Surface.solve`):

=================  ==============================  =============================================
`steps_ratio`      S(b) = r S(∞)                   r = 2 is McCandlish's critical batch [1]_
`doubling_saves`   S(2b) = (1 - γ) S(b)            doubling still saves a share γ of the updates
`excess_samples`   b S(b) = (1 + ε) b_0 S(b_0)     Zhang et al.: samples a share ε above those
                                                   of linear scaling from b_0 [2]_
`least_steps`      dS/db = 0                       S is least
=================  ==============================  =============================================

References
----------
.. [1] McCandlish et al., "An Empirical Model of Large-Batch Training", arXiv:1812.06162.
.. [2] Zhang et al., "How Does Critical Batch Size Scale in Pre-training?", arXiv:2410.21676.
"""

from __future__ import annotations

import numpy as np

from cbsbayes.posterior.surface import Condition, LogSteps

__all__ = ["doubling_saves", "excess_samples", "least_steps", "steps_ratio"]

_STEP = 1.001  # of a batch, across which S falls or rises


def steps_ratio(ratio: float) -> Condition:
    """Return the condition that S is above `ratio` times its limit along the line."""
    def condition(log_steps: LogSteps, batch: np.ndarray) -> np.ndarray:
        return log_steps(batch) - log_steps(np.inf) - np.log(ratio)

    return condition


def doubling_saves(share: float) -> Condition:
    """Return the condition that doubling the batch saves more than a share of the updates."""
    def condition(log_steps: LogSteps, batch: np.ndarray) -> np.ndarray:
        return log_steps(batch) - log_steps(2.0 * batch) + np.log1p(-share)

    return condition


def excess_samples(share: float, anchor: float) -> Condition:
    """Return the condition that samples exceed those at the batch `anchor` by less than a share.

    Samples fall again towards small batches where the exponent is above 1: look beyond `anchor`.
    """
    def condition(log_steps: LogSteps, batch: np.ndarray) -> np.ndarray:
        at_anchor = np.log(anchor) + log_steps(anchor)
        return np.log1p(share) + at_anchor - np.log(batch) - log_steps(batch)

    return condition


def least_steps(log_steps: LogSteps, batch: np.ndarray) -> np.ndarray:
    """Return the condition that S still falls: it is met where S is least."""
    return log_steps(batch / _STEP) - log_steps(batch * _STEP)
