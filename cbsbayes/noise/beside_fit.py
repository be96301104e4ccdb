r"""Measured gradient noise beside the fitted noise scales; neither is put in the other's place.

A fitted scale at a threshold is an average over the way there: with τ the updates an infinite
batch would have needed, S_min(t) = τ(t), and B(t) is the mean of the momentary noise over
0 … τ(t) (exactly so for exponent 1; for others it lies between that mean and the mean of order
alpha). So both sides are brought to the same average, twice over:

``up_to``
    from the start to the threshold: the momentary values measured in the accuracy ranges between
    thresholds, weighted with the progress that the fit gives to each range,
    (S_min(t_j) − S_min(t_{j−1})) / S_min(t);
``range``
    inside one accuracy range: the value measured there against
    (S_min(t_j) B(t_j) − S_min(t_{j−1}) B(t_{j−1})) / (S_min(t_j) − S_min(t_{j−1})).

A scale holds only with its law, so the rows repeat for the exponents of the alternative laws; of
those the fit keeps tables, and their posterior is taken as two halves of log-normals with the
table's median and interval.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import ndtri

from cbsbayes.errors import CBSDataError
from cbsbayes.models.laws import Law, get_law
from cbsbayes.models.measured_noise import MIN_BATCHES, Part, parts_of
from cbsbayes.noise.logged import (
    Measured,
    measured_in_ranges,
    norms_at_accuracy,
    norms_in_ranges,
    probes_at_accuracy,
)
from cbsbayes.posterior.fit import Fit, stacked
from cbsbayes.posterior.tidy import identify, masked

__all__ = ["FACTOR", "NOISE_COLUMNS", "Fitted", "measured_average", "noise_comparison",
           "shown_rows", "verdict_of"]

FACTOR = 3.0  # half an order of magnitude: more agreement than that is not to be expected
NOISE_COLUMNS = [
    "group", "law", "threshold", "quantity", "at", "unit", "source", "average", "accuracy_from",
    "accuracy_to", "measured", "measured_lower", "measured_upper", "measured_status", "n_probes",
    "n_runs", "probe_accuracy", "fitted", "fitted_lower", "fitted_upper", "fitted_status", "ratio",
    "ratio_lower", "ratio_upper", "ci_prob", "verdict"]


class Fitted(NamedTuple):
    """One noise scale of a law: draws and S_min, dims (draw, threshold), status by threshold."""

    scale: np.ndarray
    s_min: np.ndarray
    status: list[str]

    def average(self, first: int, last: int) -> tuple[np.ndarray, str]:
        """Return the scale averaged over progress, shape (draw,), and its status.

        Parameters
        ----------
        first, last : int
            Thresholds at whose accuracy ranges the average begins and ends; from the start of
            training for 0.
        """
        if first == 0:
            return self.scale[:, last], self.status[last]
        sums, before = self.scale * self.s_min, first - 1
        with np.errstate(divide="ignore", invalid="ignore"):
            momentary = ((sums[:, last] - sums[:, before])
                         / (self.s_min[:, last] - self.s_min[:, before]))
        known = self.status[last] == self.status[before] == "identified"
        return momentary, "identified" if known else "not_identified"


def noise_comparison(fit: Fit, *, random_seed: int = 0) -> pd.DataFrame:
    """Return measured beside fitted noise scales at every threshold of a fit.

    Parameters
    ----------
    fit : Fit
        A fit to runs that logged gradient noise.
    random_seed : int
        Seed of the draws that carry the sampling error of the measurement.

    Returns
    -------
    DataFrame
        Columns `NOISE_COLUMNS`; ``source`` is ``probe`` or ``norms`` (`cbsbayes.noise.logged`, of
        which ``n_probes`` counts updates); scales in ``unit``, ``ratio`` is measured / fitted,
        intervals are equal-tailed. ``measured`` is empty, and its upper end infinite, where the
        denominator is not told from zero (``not_resolved``); ``verdict`` is ``agree`` (the ratio's
        interval within a factor of 3), ``differ`` (it excludes 1) or ``not_resolved``.

    Raises
    ------
    CBSDataError
        If these runs logged neither numerators and denominators of gradient noise nor gradient
        norms of several batch sizes.
    """
    edges = -fit.thresholds if fit.sweep.attrs["direction"] == "decreasing" else fit.thresholds
    n_draws = fit.posterior.sizes["chain"] * fit.posterior.sizes["draw"]
    rows: list[dict[str, Any]] = []
    for number, (source, part, measure) in enumerate(_sources(fit)):
        rng = np.random.default_rng([random_seed, number])
        measured = measure(edges, n_draws=n_draws, rng=rng)
        for law, fitted in _fitted(fit, part, n_draws, rng):
            averages = ("up_to", "range") if law.name == fit.law.name else ("up_to",)
            labels = {"group": fit.group, "law": law.name, "source": source, **part._asdict()}
            rows += [labels | row for row in _rows(fit, measured, fitted, averages)]
    return pd.DataFrame(rows, columns=NOISE_COLUMNS)


def _sources(fit: Fit) -> list[tuple[str, Part, Callable[..., list[Measured]]]]:
    """Return what was measured of each scale of the law: by probes, and by gradient norms."""
    found: list[tuple[str, Part, Callable[..., list[Measured]]]] = []
    fitted = fit.sweep.sel(run=fit.crossings["run"].values), fit.settings.get("metric") or None
    try:
        probes = probes_at_accuracy(*fitted)
        found += [("probe", part, partial(measured_in_ranges, probes, part, law=fit.law))
                  for part in parts_of(fit.law, _groups(probes, fit))]
    except CBSDataError as error:
        missing = str(error)
    try:
        norms = norms_at_accuracy(*fitted)
    except CBSDataError as error:
        if not found:
            raise CBSDataError(f"{missing}; {error}") from None
        return found
    size = "n_prompts" if fit.law.two_axis else "total_batch"
    for part in parts_of(fit.law, _groups(norms, fit)):
        own = norms if part.quantity == "B_noise" else norms[norms["n_rollouts"] == part.n_rollouts]
        if own[size].nunique() >= MIN_BATCHES:
            found.append(("norms", part, partial(norms_in_ranges, own, size=size)))
    if not found:
        raise CBSDataError(f"{missing}; gradient norms say nothing of it without {MIN_BATCHES} "
                           "batch sizes at one group size")
    return found


def _groups(table: pd.DataFrame, fit: Fit) -> list[int]:
    return sorted({int(g) for g in table["n_rollouts"] if g > 1 or not fit.law.group_baseline})


def _fitted(
    fit: Fit, part: Part, n_draws: int, rng: np.random.Generator
) -> Iterator[tuple[Law, Fitted]]:
    """Yield the scale under the law fitted, then under alternative laws of the same scales."""
    (posterior, s_min), (prior, _) = (_draws(fit.law, draws, part)
                                      for draws in (fit.posterior, fit.prior))
    status = [identify(after, before) for after, before in zip(posterior.T, prior.T, strict=True)]
    yield fit.law, Fitted(posterior, s_min, status)
    for name, table in fit.others.items():
        law = get_law(name)
        same = (law.scales, law.group_baseline) == (fit.law.scales, fit.law.group_baseline)
        if same and law.alpha is not None:
            yield law, _from_table(table, law, part, fit.thresholds, n_draws, rng)


def _draws(law: Law, draws: xr.Dataset, part: Part) -> tuple[np.ndarray, np.ndarray]:
    """Return draws of a scale and of S_min, dims (draw, threshold)."""
    names = law.scales if part.quantity == "N" else (part.quantity,)
    flat = stacked(draws[["S_min", *names]]).transpose("sample", "threshold")
    scale = (flat[part.quantity] if part.quantity != "N" else
             law.noise_in_prompts(part.n_rollouts, flat["B_prompt"], flat["B_rollout"]))
    return scale.values, flat["S_min"].values


def _from_table(
    table: pd.DataFrame, law: Law, part: Part, thresholds: np.ndarray, n_draws: int,
    rng: np.random.Generator,
) -> Fitted:
    """Return a scale as draws from a table's median and interval.

    N stands in the tables as a multiple, the prompt CBS at that group size.
    """
    name, factor = (part.quantity, 1.0) if part.quantity != "N" else (
        "cbs_prompts", 2.0 ** (1.0 / float(law.alpha or 1.0)) - 1.0)
    table = table.set_index("threshold")
    s_min = table.loc[table["quantity"] == "S_min", "median"].reindex(thresholds)
    rows = table[(table["quantity"] == name) & (table["at"] == part.at)]
    status = rows["status"].reindex(thresholds).where(s_min.notna())
    scale = np.full((n_draws, len(thresholds)), np.nan)
    for k in np.flatnonzero(status == "identified"):
        scale[:, k] = factor * rng.permutation(_log_normal(rows.loc[thresholds[k]], n_draws))
    return Fitted(scale, np.tile(s_min.where(status.notna()), (n_draws, 1)),
                  status.fillna("not_identified").tolist())


def _log_normal(row: pd.Series, n_draws: int) -> np.ndarray:
    """Return evenly spaced quantiles of two half log-normals that meet at a row's median."""
    z = ndtri((np.arange(n_draws) + 0.5) / n_draws)
    end = ndtri((1 + row["ci_prob"]) / 2)
    below, above = (abs(np.log(row[name] / row["median"])) / end
                    for name in ("ci_lower", "ci_upper"))
    return row["median"] * np.exp(z * np.where(z < 0, below, above))


def _rows(
    fit: Fit, measured: list[Measured], fitted: Fitted, averages: tuple[str, ...]
) -> Iterator[dict[str, Any]]:
    """Yield a row per threshold and average; ranges that were joined have one at their end."""
    thresholds, ci_prob = fit.thresholds.tolist(), float(fit.settings["ci_prob"])
    for k, end in enumerate(measured):
        for average in averages:
            used = measured[: k + 1] if average == "up_to" else [end]
            first, counts = used[0].first, [m.n_probes for m in used]
            accuracy = [m.accuracy for m in used]
            row = {"threshold": thresholds[end.last], "average": average, "ci_prob": ci_prob,
                   "accuracy_from": thresholds[first - 1] if first else np.nan,
                   "accuracy_to": thresholds[end.last], "n_probes": sum(counts),
                   "n_runs": max(m.n_runs for m in used),
                   "probe_accuracy": (np.average(np.nan_to_num(accuracy), weights=counts)
                                      if any(counts) else np.nan)}
            yield row | _compared(measured_average(used, fitted.s_min),
                                  *fitted.average(first, end.last), ci_prob)


def measured_average(used: list[Measured], s_min: np.ndarray) -> np.ndarray:
    """Return the measured scale averaged over progress, shape (draw,); empty if too few probes.

    Parameters
    ----------
    used : list of Measured
        Of neighbouring accuracy ranges.
    s_min : numpy.ndarray
        Progress at the thresholds, dims (draw, threshold).
    """
    if any(not m.draws.size for m in used) or np.isnan(s_min[:, : used[-1].last + 1]).any():
        return np.empty(0)
    progress = np.stack([s_min[:, m.last] - (s_min[:, m.first - 1] if m.first else 0.0)
                         for m in used], axis=1)
    share = progress / progress.sum(axis=1, keepdims=True)
    draws = np.stack([m.draws for m in used], axis=1)
    return np.where(share > 0, share * draws, 0.0).sum(axis=1)


def _compared(
    theirs: np.ndarray, ours: np.ndarray, status: str, ci_prob: float
) -> dict[str, Any]:
    """Return the numbers and the verdict of one row from draws of both sides."""
    measured = _columns("measured", theirs, ci_prob)
    resolved = theirs.size > 0 and bool(np.isfinite(measured["measured_upper"]))
    # a difference of two averages may say nothing
    if status == "identified" and not masked(ours, status, ci_prob)[1] > 0:
        status = "upper_bound"
    both = theirs / ours if theirs.size and status == "identified" else np.empty(0)
    ratio = _columns("ratio", both, ci_prob)
    if not resolved:
        measured["measured"] = ratio["ratio"] = np.nan
    return {**measured, **ratio, **_named("fitted", masked(ours, status, ci_prob)),
            "fitted_status": status, "measured_status": (
                "resolved" if resolved else "not_resolved" if theirs.size else "too_few"),
            "verdict": verdict_of(ratio["ratio_lower"], ratio["ratio_upper"])}


def _columns(name: str, draws: np.ndarray, ci_prob: float) -> dict[str, float]:
    """Return columns of median and interval; infinite draws are larger than any number.

    With hardly a finite draw even the lower end would be infinite; it is 0 instead.
    """
    if not draws.size:
        return _named(name, (np.nan, np.nan, np.nan))
    if np.isinf(draws).mean() > (1 + ci_prob) / 2:  # |G|² came out negative: it says nothing
        return _named(name, (np.inf, 0.0, np.inf))
    return _named(name, masked(draws, "identified", ci_prob))


def _named(name: str, numbers: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip((name, f"{name}_lower", f"{name}_upper"), numbers, strict=True))


def shown_rows(table: pd.DataFrame, fit: Fit) -> pd.DataFrame:
    """Return the rows worth a first look: N at the group size with most runs, and its parts."""
    usual = fit.crossings["n_rollouts"].to_series().mode().max()
    return table[(table["quantity"] != "N") | (table["at"] == f"n_rollouts={usual}")]


def verdict_of(lower: float, upper: float) -> str:
    """Return what the interval of a ratio says: ``agree``, ``differ`` or ``not_resolved``.

    Examples
    --------
    >>> verdict_of(1.2, 2.5), verdict_of(2.0, 4.0), verdict_of(0.5, 8.0)
    ('agree', 'differ', 'not_resolved')
    """
    if lower >= 1 / FACTOR and upper <= FACTOR:
        return "agree"
    return "differ" if lower > 1 or upper < 1 else "not_resolved"
