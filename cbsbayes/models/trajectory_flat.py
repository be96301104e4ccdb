r"""The trajectory model: whole curves of all runs at once, as one flat vector of parameters.

.. math::

    d\tau/ds &= e^{-u_i - w_i(s)} (1 + N(h; G_i)/P_i)^{-\alpha}, \quad
        \log b(h) = \beta_0 + \beta_1 x + \beta_2 x^2,\ x = \mathrm{logit}\,h - x_0 \\
    h(\tau) &= a_0 + (c - a_0)(1 - 2^{-(\tau/\tau_{1/2})^\kappa}) + \sum_k z_k \psi_k \\
    y_{ie} &= h(\tau_i(s_e)) + o_i + \epsilon_{ie}

Progress τ counts the updates an infinite batch would have needed. u is a run's own speed, w how it
wanders along the way (a random walk in log s), o an offset in accuracy after the start; ε is white
noise and a serially correlated part, for greedy answers to the same items change slowly. The bend
ψ is that of the validation set and of training itself (`cbsbayes.models.item_set`). u, w and o act
to first order around where the data put them and are integrated out in closed form, so that the
vector holds shared parameters only, however many runs there are.

Where small groups may saturate lower, a run of group size G shows
:math:`h_0 + f(G) (h(\tau) - h_0)` in place of h, with :math:`f(G) = e^{-\lambda/G}` and h_0 what is
shown before training: endless groups show the curve itself. The momentary noise goes with progress.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import logit

from cbsbayes.models.item_set import n_terms
from cbsbayes.models.laws import Law
from cbsbayes.models.parameters import AlphaPrior, Block, FlatModel
from cbsbayes.models.trajectory_data import TrajectoryData
from cbsbayes.models.trajectory_priors import TRAJECTORY_PRIORS, TrajectoryPriors

__all__ = ["FlatTrajectory"]


@dataclass(frozen=True)
class FlatTrajectory(FlatModel):
    """The flat vector of one model.

    Attributes
    ----------
    data : TrajectoryData
        The curves.
    law : Law
        The law.
    priors : TrajectoryPriors
        Of the model.
    ceiling_by_group : bool
        Whether small groups may saturate lower, or higher.
    """

    data: TrajectoryData
    law: Law
    priors: TrajectoryPriors = TRAJECTORY_PRIORS
    ceiling_by_group: bool = False

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """Blocks in the order of the flat vector."""
        p = self.priors
        blocks = [Block("start", self._start(), p.start_sd, transform="logodds"),
                  Block("ceiling_logit", *p.ceiling)]
        if self.ceiling_by_group:
            blocks.append(Block("ceiling_loss", 0.0, p.ceiling_loss_sd))
        blocks += [Block("log_half_level", 0.0, p.level_sd),
                   Block("kappa", *p.shape, transform="log")]
        for name in self.law.scales:
            blocks += [Block(f"{name}_level", 0.0, p.scale_level_sd),
                       Block(f"{name}_trend", 0.0, p.scale_trend_sd)]
        blocks.append(Block("noise_curvature", 0.0, p.curvature_sd))
        if self.law.alpha is None:
            mean, sd, lower, upper = p.alpha
            width = upper - lower
            share = (mean - lower) / width
            blocks.append(Block("alpha", float(logit(share)), sd / (width * share * (1 - share)),
                                transform="interval"))
        blocks += [Block("sigma_run", *p.sigma_run, transform="log"),
                   Block("sigma_wander", *p.sigma_wander, transform="log"),
                   Block("sigma_offset", *p.sigma_offset, transform="log"),
                   Block("sigma_noise", *p.sigma_noise, transform="log"),
                   Block("sigma_serial", *p.sigma_serial, transform="log"),
                   Block("memory", *p.memory, transform="log"),
                   Block("noise_trend", *p.noise_trend),
                   Block("item_set", 0.0, 1.0, "term", size=n_terms(self.data))]
        return tuple(blocks)

    def _start(self) -> float:
        """Return the logit of the accuracy before training, or of the lowest seen."""
        start, n = self.data.start, self.data.n_items
        seen = np.nanmean(start) if np.isfinite(start).any() else self.data.typical.accuracy[0]
        return float(logit(np.clip(seen, 0.5 / n, 1 - 0.5 / n)))

    @property
    def alpha_prior(self) -> AlphaPrior:
        """The exponent's prior."""
        return self.priors.alpha

    def parameters(self, position: np.ndarray) -> dict[str, np.ndarray]:
        """Return every variable on its own scale from draws of the flat vector.

        Parameters
        ----------
        position : numpy.ndarray
            Shape (draw, n_dim).

        Returns
        -------
        dict
            Name to shape (draw,), or (draw, term) for the item set.
        """
        values = {b.name: self.back(b, position[:, self.slices[b.name]]) for b in self.blocks}
        return {b.name: values[b.name] if b.dim else values[b.name][:, 0] for b in self.blocks}
