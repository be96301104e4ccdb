r"""The trajectory model in PyMC: priors by name, and the compiled likelihood as one operation.

`cbsbayes.models.trajectory_flat` states the model. Here its shared parameters are PyMC variables
with the priors of `cbsbayes.models.trajectory_priors`; what a position says about the curves, runs'
own parameters integrated out, is `cbsbayes.models.trajectory_kernel` with its own gradient.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pymc.distributions.transforms import logodds
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from scipy.special import expit

from cbsbayes.models import trajectory_kernel as kernel
from cbsbayes.models.parameters import Block
from cbsbayes.models.trajectory_flat import FlatTrajectory
from cbsbayes.models.trajectory_words import likelihood_words

__all__ = ["CurveLikelihood", "build_trajectory_model", "position_of"]


def build_trajectory_model(flat: FlatTrajectory) -> pm.Model:
    """Return the PyMC model of the curves, runs linearised where `flat` has them.

    Parameters
    ----------
    flat : FlatTrajectory
        Data, law and priors.

    Returns
    -------
    pymc.Model
        Coords ``run, term``; variables are the blocks of `flat`, in their order, and
        ``run_log_likelihood``.
    """
    terms = np.arange(1, flat.slices["item_set"].stop - flat.slices["item_set"].start + 1)
    with pm.Model(coords={"run": flat.data.run, "term": terms}) as model:
        values = [_on_flat_scale(flat, block, _variable(block, flat)) for block in flat.blocks]
        total, by_run = CurveLikelihood(flat).make_node(pt.concatenate(values)).outputs
        pm.Potential("curves", total)
        pm.Deterministic("run_log_likelihood", by_run, dims="run")
    return model


def _variable(block: Block, flat: FlatTrajectory) -> Any:
    """Return a block's variable with the prior that the flat vector implies."""
    dims = (block.dim,) if block.dim else None
    if block.transform == "log":
        return pm.LogNormal(block.name, block.center, block.sd, dims=dims)
    if block.transform == "logodds":
        return pm.LogitNormal(block.name, block.center, block.sd, dims=dims,
                              default_transform=logodds)
    if block.transform == "interval":
        mean, sd, lower, upper = flat.alpha_prior
        return pm.TruncatedNormal(block.name, mean, sd, lower=lower, upper=upper)
    return pm.Normal(block.name, block.center, block.sd, dims=dims)


def _on_flat_scale(flat: FlatTrajectory, block: Block, variable: Any) -> Any:
    """Return a variable's unconstrained coordinates, shape (block.size,)."""
    if block.transform == "log":
        variable = pt.log(variable)
    elif block.transform:
        lower, upper = flat.alpha_prior[2:] if block.transform == "interval" else (0.0, 1.0)
        variable = pt.log(variable - lower) - pt.log(upper - variable)
    return pt.atleast_1d(variable)


class CurveLikelihood(Op):
    """Log p(all curves | shared parameters), and that of every run, from the flat vector."""

    def __init__(self, flat: FlatTrajectory) -> None:
        self.words = likelihood_words(flat)
        self.alpha = flat.slices["alpha"].start if "alpha" in flat.slices else -1

    def make_node(self, *inputs: Any) -> Apply:
        """Return the node: a vector in, a scalar and a vector (run,) out."""
        position = pt.as_tensor_variable(inputs[0])
        return Apply(self, [position], [pt.dscalar(), pt.dvector()])

    def perform(self, node: Any, inputs: Any, outputs: Any) -> None:
        """Fill in both outputs."""
        by_run = kernel.log_densities(inputs[0][None], self.words)[1][0]
        outputs[0][0], outputs[1][0] = np.asarray(by_run.sum()), by_run

    def pullback(self, inputs: Any, outputs: Any, cotangents: Any) -> list[Any]:
        """Return the slope by the position; runs one by one have none of their own."""
        return [cotangents[0] * _CurveGradient(self.words, self.alpha)(inputs[0])]


class _CurveGradient(Op):
    """The gradient of `CurveLikelihood`'s total."""

    def __init__(self, words: np.ndarray, alpha: int) -> None:
        self.words, self.alpha = words, alpha

    def make_node(self, *inputs: Any) -> Apply:
        return Apply(self, [*inputs], [pt.dvector()])

    def perform(self, node: Any, inputs: Any, outputs: Any) -> None:
        gradient = kernel.log_density(inputs[0], self.words)[1]
        if self.alpha >= 0:  # the kernel's exponent brings its Jacobian along
            gradient[self.alpha] -= 1.0 - 2.0 * expit(inputs[0][self.alpha])
        outputs[0][0] = gradient


def position_of(flat: FlatTrajectory, posterior: Any) -> np.ndarray:
    """Return the flat vector from draws of the model's variables, shape (chain, draw, n_dim)."""
    return np.concatenate([_flattened(flat, block, posterior[block.name].values)
                           for block in flat.blocks], axis=-1)


def _flattened(flat: FlatTrajectory, block: Block, value: np.ndarray) -> np.ndarray:
    value = value.reshape(*value.shape[:2], -1)
    if block.transform == "log":
        return np.log(value)
    lower, upper = flat.alpha_prior[2:] if block.transform == "interval" else (0.0, 1.0)
    if block.transform in ("interval", "logodds"):
        return np.log(value - lower) - np.log(upper - value)
    return value
