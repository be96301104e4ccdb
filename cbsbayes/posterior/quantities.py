"""What is read off a posterior, in the order of what leans least on the law.

First what doubling the batch buys inside the range tried, then the batch where that stops paying,
then the critical batch sizes, then the noise scales and S_min. S at the batches that were run,
which hardly leans on the law but answers no question of its own, closes the table. Each quantity
names what is held fixed and its unit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from cbsbayes.models.laws import Law
from cbsbayes.models.parameters import SATURATION
from cbsbayes.posterior.surface import Surface, doubling_saves, least_steps, steps_ratio

__all__ = ["GAIN", "OF_ONE_LAW", "Design", "Quantity", "best_rollouts", "design_of", "exp_of",
           "quantities"]

OF_ONE_LAW = ("alpha", "B_noise", "B_prompt", "B_rollout", "E_min")
"""Quantities that are no numbers without their law."""
GAIN = 0.10  # doubling "still pays" while it cuts updates by this share


@dataclass(frozen=True)
class Quantity:
    """Draws of one quantity.

    Attributes
    ----------
    name, at, unit : str
        As in ``cbs.csv``.
    draws : xarray.DataArray
        Dims (chain, draw) and, unless it is one number for all, threshold.
    log_scale : bool
        Whether its spread is judged on the log scale.
    if_reached : bool
        Whether it is stated for targets that are reached: draws in which this one never is are
        NaN.
    """

    name: str
    at: str
    unit: str
    draws: xr.DataArray
    log_scale: bool = True
    if_reached: bool = False


@dataclass(frozen=True)
class Design:
    """The batches that were run, along each axis.

    Attributes
    ----------
    prompts_at : dict
        n_rollouts to the sorted n_prompts tried with it, only where at least two were.
    rollouts_at : dict
        n_prompts to the sorted n_rollouts tried with it, only where at least two were.
    total : tuple
        Sorted total batches.
    one_axis : bool
        Whether the data give total batches only.
    batches : tuple
        All (n_prompts, n_rollouts) that were run, sorted; empty where there is one axis.
    parts_known : bool
        Whether measured gradient noise tells prompts from rollouts.
    """

    prompts_at: dict[int, tuple[int, ...]]
    rollouts_at: dict[int, tuple[int, ...]]
    total: tuple[float, ...]
    one_axis: bool
    batches: tuple[tuple[int, int], ...] = ()
    parts_known: bool = False

    @property
    def groups(self) -> list[int]:
        """The n_rollouts at which prompt scales are stated: those with a line, else the middle."""
        return list(self.prompts_at) or self._middle(1)

    @property
    def prompts(self) -> list[int]:
        """The n_prompts at which rollout scales are stated: those with a line, else the middle."""
        return list(self.rollouts_at) or self._middle(0)

    @property
    def both_vary(self) -> bool:
        """Whether the noise of prompts and rollouts can be told apart: both varied, or measured."""
        return self.parts_known or all(
            len({batch[axis] for batch in self.batches}) > 1 for axis in (0, 1))

    def _middle(self, axis: int) -> list[int]:
        distinct = sorted({batch[axis] for batch in self.batches})
        return [distinct[len(distinct) // 2]] if self.both_vary else []


def design_of(ds: xr.Dataset) -> Design:
    """Return the batches of the runs in a dataset."""
    prompts, rollouts = ds["n_prompts"].values, ds["n_rollouts"].values
    total = tuple(np.unique(ds["total_batch"].values).tolist())
    if (prompts < 0).any():
        return Design({}, {}, total, one_axis=True)
    batches = tuple(sorted(set(zip(prompts.tolist(), rollouts.tolist(), strict=True))))
    return Design(_lines(rollouts, prompts), _lines(prompts, rollouts), total, False, batches)


def _lines(fixed: np.ndarray, varied: np.ndarray) -> dict[int, tuple[int, ...]]:
    lines = {int(f): tuple(np.unique(varied[fixed == f]).tolist()) for f in np.unique(fixed)}
    return {f: values for f, values in lines.items() if len(values) >= 2}


def quantities(law: Law, posterior: xr.Dataset, design: Design) -> list[Quantity]:
    """Return all quantities that the law and the batches tried allow.

    Parameters
    ----------
    law : Law
        The law that was fitted.
    posterior : xarray.Dataset
        Draws of ``S_min``, the law's scales and, where free, ``alpha``.
    design : Design
        Decides at which batches gains and critical batch sizes are stated.
    """
    surface = Surface(law, posterior)
    critical = _critical_two_axis if law.two_axis else _critical_total
    rollouts = "prompts × (rollouts − 1)" if law.group_baseline else "prompts × rollouts"
    units = {"B_noise": "samples", "B_prompt": "prompts", "B_rollout": rollouts, "S_min": "updates"}
    out = [*_gains(surface, design), *critical(surface, design)]
    out += [Quantity(name, "", units[name], posterior[name]) for name in (*law.scales, "S_min")]
    if law.alpha is None:
        out.append(Quantity("alpha", "", "1", posterior["alpha"], log_scale=False))
    if law.alpha == 1.0:
        out.append(Quantity("E_min", "", "samples", posterior["S_min"] * _least_noise(surface)))
    if surface.ceilings is not None:
        out = [replace(quantity, if_reached=True) for quantity in out]
        out += _ceilings(surface, design)
    return [*out, *_steps(surface, design)]


def _least_noise(surface: Surface) -> xr.DataArray:
    """Return the noise scale in samples at the group size that spends the fewest of them."""
    law, posterior = surface.law, surface.posterior
    if not law.two_axis:
        return posterior["B_noise"]
    if not law.group_baseline:  # E falls with G down to one rollout a prompt
        return posterior["B_prompt"] + posterior["B_rollout"]
    return (posterior["B_prompt"] ** 0.5 + posterior["B_rollout"] ** 0.5) ** 2


def _doubled[T: (int, float)](values: tuple[T, ...]) -> list[T]:
    """Return the values whose double lies inside the range tried, though it need not be one."""
    return [v for v in values if 2 * v <= max(values)]


def exp_of(log_values: xr.DataArray) -> xr.DataArray:
    """Return the exponential of draws."""
    return log_values.copy(data=np.exp(log_values.values))


def _gains(surface: Surface, design: Design) -> Iterator[Quantity]:
    """Yield S after doubling an axis over S before, inside the range tried."""
    pairs = [("gain_total", f"total_batch={b:.12g}", (b, 1.0), (2 * b, 1.0))
             for b in _doubled(design.total) if design.one_axis]
    pairs += [("gain_prompts", f"n_prompts={p},n_rollouts={g}", (p, g), (2 * p, g))
              for g, ps in design.prompts_at.items() for p in _doubled(ps)]
    pairs += [("gain_rollouts", f"n_prompts={p},n_rollouts={g}", (p, g), (p, 2 * g))
              for p, gs in design.rollouts_at.items() for g in _doubled(gs)]
    for name, at, before, after in pairs:
        with np.errstate(invalid="ignore"):  # where a group never arrives, before nor after
            ratio = exp_of(surface.log_steps(*after) - surface.log_steps(*before))
        yield Quantity(name, at, "1", ratio)


def _critical_total(surface: Surface, design: Design) -> Iterator[Quantity]:
    total = surface.solve(steps_ratio(2.0), "total")
    yield Quantity("batch_at_gain", f"gain={GAIN:g}", "samples",
                   surface.solve(doubling_saves(GAIN), "total"))
    yield Quantity("cbs_samples", "", "samples", total)
    for g in design.prompts_at:
        yield Quantity("cbs_prompts", f"n_rollouts={g}", "prompts", total / g)
    for p in design.rollouts_at:
        yield Quantity("cbs_rollouts", f"n_prompts={p}", "rollouts", total / p)


def _critical_two_axis(surface: Surface, design: Design) -> Iterator[Quantity]:
    lines = [("prompts", "n_rollouts", g) for g in design.groups]
    lines += [("rollouts", "n_prompts", p) for p in design.prompts]
    for along, held, value in lines:
        yield Quantity("batch_at_gain", f"gain={GAIN:g},{held}={value}", along,
                       surface.solve(doubling_saves(GAIN), along, value))
    for along, held, value in lines:
        batch = surface.solve(steps_ratio(2.0), along, value)
        yield Quantity(f"cbs_{along}", f"{held}={value}", along, batch)
        if along == "prompts":
            yield Quantity("cbs_samples", f"{held}={value}", "samples", batch * value)
    # in 1/G a fixed batch is best spent on prompts
    if design.both_vary and surface.law.group_baseline:
        yield _best_group(surface, design)


def _best_group(surface: Surface, design: Design) -> Quantity:
    """Return the best group size at a fixed batch; with ceilings that depends on the batch."""
    if surface.ceilings is None:
        return Quantity("best_n_rollouts", "", "rollouts", best_rollouts(surface.posterior))
    middle = 2 ** round(float(np.log2(design.total).mean()))
    return Quantity("best_n_rollouts", f"total_batch={middle}", "rollouts",
                    surface.solve(least_steps, "split", middle))


def best_rollouts(posterior: xr.Dataset, cost_ratio: float = 0.0) -> xr.DataArray:
    """Return the group size that minimises S at a fixed batch, for every exponent.

    Parameters
    ----------
    posterior : xarray.Dataset
        Draws of ``B_prompt`` and ``B_rollout`` of a law with a group baseline.
    cost_ratio : float
        Cost of a prompt over that of a rollout; what is fixed is then the cost of an update.
    """
    ratio = posterior["B_rollout"] / posterior["B_prompt"]
    return 1.0 + ((1.0 + cost_ratio) * ratio) ** 0.5


def _ceilings(surface: Surface, design: Design) -> Iterator[Quantity]:
    """Yield λ, and what share of endless groups' gain the extreme groups tried can reach."""
    ceilings, groups = surface.ceilings, sorted({g for _, g in design.batches})
    assert ceilings is not None
    yield Quantity(SATURATION, "", "1", surface.posterior[SATURATION], log_scale=False)
    for g in dict.fromkeys((groups[0], groups[-1])):
        yield Quantity("reach", f"n_rollouts={g}", "1", ceilings.attainable(g))
        yield Quantity("ceiling", f"n_rollouts={g}", "accuracy", ceilings.ceiling(g),
                       log_scale=False)


def _steps(surface: Surface, design: Design) -> Iterator[Quantity]:
    batches = [(f"total_batch={b:.12g}", (b, 1.0)) for b in design.total if design.one_axis]
    batches += [(f"n_prompts={p},n_rollouts={g}", (p, g)) for p, g in design.batches]
    for at, batch in batches:
        yield Quantity("steps", at, "updates", exp_of(surface.log_steps(*batch)))
