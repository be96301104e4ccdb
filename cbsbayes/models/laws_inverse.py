r"""Laws turned round: the batch where S is twice its limit, or where doubling stops paying.

Closed forms on arrays, one function per question, all from `cbsbayes.models.laws`. With
:math:`N = B_p + B_r/(G-1)` and exponent α:

- S = 2 S_min at :math:`P^* = N/(2^{1/\alpha} - 1)` prompts;
- S = 2 S(P, G → ∞) at :math:`G^* - 1 = B_r/((P + B_p)(2^{1/\alpha} - 1))`;
- doubling P still saves a share γ at :math:`P = N (2r - 1)/(2 (1 - r))` with
  :math:`r = (1-\gamma)^{1/\alpha}`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cbsbayes.models.laws import Law, noise_in_prompts

__all__ = ["best_rollouts", "cbs_prompts", "cbs_rollouts", "cbs_total", "prompts_at_gain",
           "rollouts_at_gain", "total_at_gain"]


def _excess(alpha: Any) -> Any:
    return 2.0 ** (1.0 / alpha) - 1.0


def cbs_total(law: Law, b_noise: Any, alpha: Any) -> Any:
    """Return the total batch (samples) at which S = 2 S_min."""
    return b_noise if law.name == "power" else b_noise / _excess(alpha)


def cbs_prompts(law: Law, n_rollouts: float, b_prompt: Any, b_rollout: Any, alpha: Any) -> Any:
    """Return P* (prompts) at which S = 2 S_min, the group size held."""
    noise = noise_in_prompts(n_rollouts, b_prompt, b_rollout, plain=law.plain)
    return noise / _excess(alpha)


def cbs_rollouts(law: Law, n_prompts: float, b_prompt: Any, b_rollout: Any, alpha: Any) -> Any:
    """Return G* (rollouts) at which S is twice its value at G → ∞, the prompts held."""
    divisor = b_rollout / ((n_prompts + b_prompt) * _excess(alpha))
    return divisor if law.plain else 1.0 + divisor


def best_rollouts(b_prompt: Any, b_rollout: Any) -> Any:
    """Return G_opt, the group size that minimises S at a fixed total batch, for every alpha."""
    return 1.0 + np.sqrt(b_rollout / b_prompt)


def total_at_gain(law: Law, gain: float, b_noise: Any, alpha: Any) -> Any:
    """Return the largest total batch (samples) at which doubling still saves a share `gain`."""
    if law.name == "power":
        spare = np.maximum(1.0 - gain - 2.0 ** (-alpha), 0.0)  # 0: no batch is small enough
        return b_noise * (spare / gain) ** (1.0 / alpha)
    return _at_ratio((1.0 - gain) ** (1.0 / alpha), b_noise)


def prompts_at_gain(
    law: Law, gain: float, n_rollouts: float, b_prompt: Any, b_rollout: Any, alpha: Any
) -> Any:
    """Return the largest n_prompts at which doubling them still saves a share `gain`."""
    noise = noise_in_prompts(n_rollouts, b_prompt, b_rollout, plain=law.plain)
    return _at_ratio((1.0 - gain) ** (1.0 / alpha), noise)


def _at_ratio(ratio: Any, noise: Any) -> Any:
    """Return b with (1 + noise/2b)/(1 + noise/b) = ratio; 0 where none is small enough."""
    return np.maximum(noise * (2.0 * ratio - 1.0) / (2.0 * (1.0 - ratio)), 0.0)


def rollouts_at_gain(
    law: Law, gain: float, n_prompts: float, b_prompt: Any, b_rollout: Any, alpha: Any
) -> Any:
    """Return the largest n_rollouts at which doubling them still saves a share `gain`.

    Under a group baseline G goes to 2G but G - 1 to 2G - 1, so a quadratic is solved.
    """
    ratio = (1.0 - gain) ** (1.0 / alpha)
    fixed = (n_prompts + b_prompt) * (1.0 - ratio)
    if law.plain:
        return np.maximum(b_rollout * (2.0 * ratio - 1.0) / (2.0 * fixed), 0.0)
    # with g = G - 1: fixed (2g + 1) g + b_rollout (g - ratio (2g + 1)) = 0
    linear = fixed + b_rollout * (1.0 - 2.0 * ratio)
    root = np.sqrt(linear**2 + 8.0 * fixed * b_rollout * ratio)
    return 1.0 + (root - linear) / (4.0 * fixed)
