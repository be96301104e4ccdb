"""Curves of new runs under the trajectory model, and where they cross thresholds.

A new run has its own speed, wander, offset and noise. Its curve is simulated at the updates at
which the run in its place was evaluated, and on beyond its end; S is then read off a monotone fit
of that curve, as it is read off a real one. Dividing the noise by the slope instead would say that
slow noise on a flattening curve moves S far, which the monotone fit of a whole curve prevents.
What stays below the threshold to the end, as small groups may, is censored there: its S is put
where the typical run arrives, at the end of the reading grid at last.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from cbsbayes.models.compiled import compiled
from cbsbayes.models.trajectory_data import TrajectoryData, ramps
from cbsbayes.models.trajectory_flat import FlatTrajectory
from cbsbayes.models.trajectory_read import foot, group_share, shown_over_steps
from cbsbayes.models.trajectory_words import cells

__all__ = ["replicated_log_steps"]

_BEYOND = np.exp(np.linspace(0.0, np.log(8.0), 13)[1:])  # times the last evaluation
_CHUNK = 4_000_000  # evaluations simulated at a time: bounds memory to some 100 MB


def replicated_log_steps(
    flat: FlatTrajectory, draws: xr.Dataset, rng: np.random.Generator
) -> np.ndarray:
    """Return log S (updates) of one new run per draw and run, shape (sample, run, threshold).

    Parameters
    ----------
    flat : FlatTrajectory
        The model.
    draws : xarray.Dataset
        Of `cbsbayes.models.trajectory_read.read_thresholds`, with dim ``sample``.
    rng : numpy.random.Generator
    """
    steps, start = _evaluations(flat.data)
    size = max(1, _CHUNK // len(steps))
    parts = [_replicated(flat, draws.isel(sample=slice(first, first + size)), steps, start, rng)
             for first in range(0, draws.sizes["sample"], size)]
    return np.concatenate(parts) + flat.data.log_steps_scale


def _evaluations(data: TrajectoryData) -> tuple[np.ndarray, np.ndarray]:
    """Return the updates at which every run's new curve is seen, and where each run begins."""
    rows = [data.seen_steps[first:last]
            for first, last in zip(data.seen_start[:-1], data.seen_start[1:], strict=True)]
    rows = [np.concatenate([row, row[-1:] * _BEYOND]) for row in rows]
    return np.concatenate(rows), np.cumsum([0, *(len(row) for row in rows)])


def _replicated(
    flat: FlatTrajectory, draws: xr.Dataset, steps: np.ndarray, start: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    data = flat.data
    values = {str(name): draws[name].transpose("sample", ...).values for name in draws.data_vars}
    n, runs = draws.sizes["sample"], len(data.run)
    batches, run_cell = cells(data)
    log_s, shown = shown_over_steps(flat, values, batches)
    own = rng.standard_normal((n, runs, len(data.knots) + 1))
    own[..., 0] *= values["sigma_run"][:, None]
    own[..., 1:-1] *= values["sigma_wander"][:, None, None]
    own[..., -1] *= values["sigma_offset"][:, None]
    noise = np.column_stack([values["sigma_noise"] / (2.0 * np.sqrt(data.n_items)),
                             values["sigma_serial"], values["memory"],
                             values["noise_trend"]])
    gap = np.diff(steps, prepend=0.0) / data.spacing
    log_steps = np.log(steps)
    return _curves(
        log_s, np.maximum.accumulate(shown, axis=1), foot(flat, values),
        group_share(flat, values, data.n_rollouts), run_cell, start, log_steps, gap,
        ramps(log_steps, data.knots), own, noise, rng.standard_normal((n, len(steps), 2)),
        draws["threshold"].values)


@compiled
def _curves(
    log_s: np.ndarray, shown: np.ndarray, foot: np.ndarray, share: np.ndarray,
    run_cell: np.ndarray, start: np.ndarray, log_steps: np.ndarray, gap: np.ndarray,
    ramps: np.ndarray, own: np.ndarray, noise: np.ndarray, normal: np.ndarray,
    thresholds: np.ndarray,
) -> np.ndarray:
    """Return log S over the scale of every draw, run and threshold."""
    n_runs = len(run_cell)
    out = np.empty((len(shown), n_runs, len(thresholds)))
    longest = 0
    for i in range(n_runs):
        longest = max(longest, start[i + 1] - start[i])
    curve, weight = np.empty(longest), np.empty(longest)
    late = np.empty(longest)
    for d in range(len(shown)):
        for i in range(n_runs):
            first, count = start[i], start[i + 1] - start[i]
            serial = 0.0
            for j in range(count):
                e = first + j
                late[j] = own[d, i, 0]
                for m in range(ramps.shape[1]):
                    late[j] += own[d, i, m + 1] * ramps[e, m]
                level = np.interp(log_steps[e] - late[j], log_s[d, run_cell[i]], shown[d])
                level -= (1.0 - share[d, i]) * (level - foot[d])
                rho = 0.0 if j == 0 else np.exp(-gap[e] / noise[d, 2])
                serial = rho * serial + np.sqrt(1.0 - rho * rho) * normal[d, e, 0]
                sd = (4.0 * max(level * (1.0 - level), 0.01)) ** (0.5 + 0.5 * noise[d, 3])
                curve[j] = (level + own[d, i, -1]
                            + sd * (noise[d, 0] * normal[d, e, 1] + noise[d, 1] * serial))
            _make_monotone(curve[:count], weight)
            for t in range(len(thresholds)):
                target = thresholds[t]
                out[d, i, t] = _crossing(target, curve[:count], log_steps[first:], shown[d, 0])
                if out[d, i, t] == np.inf:  # where the curve itself gets there, or the last node
                    if share[d, i] != 1.0:
                        target = foot[d] + (target - foot[d]) / share[d, i]
                    k = min(np.searchsorted(shown[d], target), shown.shape[1] - 1)
                    out[d, i, t] = max(log_s[d, run_cell[i], k] + late[count - 1],
                                       log_steps[first + count - 1])
    return out


@compiled
def _make_monotone(values: np.ndarray, weight: np.ndarray) -> None:
    """Replace values by their non-decreasing least-squares fit (pool adjacent violators)."""
    blocks = 0
    for k in range(len(values)):
        values[blocks], weight[blocks] = values[k], 1.0
        blocks += 1
        while blocks > 1 and values[blocks - 2] > values[blocks - 1]:
            total = weight[blocks - 2] + weight[blocks - 1]
            values[blocks - 2] = (weight[blocks - 2] * values[blocks - 2]
                                  + weight[blocks - 1] * values[blocks - 1]) / total
            weight[blocks - 2] = total
            blocks -= 1
    at = len(values)
    for b in range(blocks - 1, -1, -1):  # backwards: block b is stored before where it goes
        value = values[b]
        for _ in range(int(weight[b])):
            at -= 1
            values[at] = value


@compiled
def _crossing(target: float, curve: np.ndarray, log_steps: np.ndarray, before: float) -> float:
    """Return the log update at which a monotone curve reaches a target; inf if it never does."""
    for k in range(len(curve)):
        if curve[k] >= target:
            low = curve[k - 1] if k > 0 else min(before, target)
            share = (target - low) / (curve[k] - low) if curve[k] > low else 1.0
            at = np.exp(log_steps[k])
            since = np.exp(log_steps[k - 1]) if k > 0 else 0.0
            return np.log(max(since + share * (at - since), 1e-3 * at))
    return np.inf
