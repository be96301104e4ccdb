"""What reuse does, as a table and in sentences; no law is claimed."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cbsbayes.report import numbers
from cbsbayes.report.contrast import equals, probability
from cbsbayes.report.estimates import Estimate, estimate, plain
from cbsbayes.report.tables import Cell, Column, Table, estimate_cell
from cbsbayes.sweep.off_policy import OFF_POLICY_KEYS

__all__ = ["diagonals_table", "effects_table", "reuse_sentences", "reuse_table"]

_LOGGED = {"clip_fraction": "clip fraction", "policy_kl": "KL to sampler",
           "reference_kl": "KL loss"}


def reuse_table(cells: pd.DataFrame, threshold: float) -> Table:
    """Return the cells at one threshold: updates, samples, and both over the least reuse.

    Parameters
    ----------
    cells : DataFrame
        The table of ``reuse.csv``, one family.
    threshold : float
        The target to tell of.
    """
    here = cells[np.isclose(cells["threshold"], threshold)]
    logged = [name for name in OFF_POLICY_KEYS if here[name].notna().any()]
    columns = (Column("prompts × rollouts"), Column("reuse", True), Column("runs", True),
               Column("updates", True), Column("samples", True), Column("updates ratio", True),
               Column("samples ratio", True), Column("P(fewer samples)", True),
               *(Column(_LOGGED[name], True) for name in logged))
    percent = numbers.percent(float(here["ci_prob"].iloc[0]))
    caption = (f"Updates and generated samples to target {plain(threshold)} by reuse factor "
               f"(ppo_epochs), typical run: median and equal-tailed {percent} interval; ratios "
               "over the least reuse run at the same batch. No law is assumed.")
    return Table(caption, columns, [_cells(row, logged) for _, row in here.iterrows()])


def _cells(row: pd.Series, logged: list[str]) -> tuple[Cell, ...]:
    reached = f"{row['n_reached']} reached" if row["n_reached"] < row["n_runs"] else ""
    ratio = str(row["ratio_status"]) if isinstance(row["ratio_status"], str) else ""
    return (Cell(f"{row['n_prompts']} × {row['n_rollouts']}"), Cell(str(row["ppo_epochs"])),
            Cell(str(row["n_runs"]), reached),
            estimate_cell(_estimate(row, "steps", row["status"])),
            estimate_cell(_estimate(row, "samples", row["status"])),
            estimate_cell(_estimate(row, "steps_ratio", ratio) if ratio else None),
            estimate_cell(_estimate(row, "samples_ratio", ratio) if ratio else None),
            Cell(probability(float(row["p_fewer_samples"]))),
            *(Cell(numbers.number(float(row[name]), digits=2)) for name in logged))


def _estimate(row: pd.Series, name: str, status: str) -> Estimate:
    return estimate({"median": row[name], "ci_lower": row[f"{name}_lower"],
                     "ci_upper": row[f"{name}_upper"], "status": status})


def reuse_sentences(
    effects: pd.DataFrame, diagonals: pd.DataFrame, threshold: float
) -> list[str]:
    """Return what each reuse factor does on average, then the best cell of every diagonal."""
    told = [_effect(row) for _, row in effects[np.isclose(effects["threshold"],
                                                         threshold)].iterrows()]
    here = diagonals[np.isclose(diagonals["threshold"], threshold)]
    for _, rows in here.groupby(["n_rollouts", "passes_per_step"], sort=False):
        told.append(_diagonal(rows))
    return told


def _effect(row: pd.Series) -> str:
    against = f"Reuse {row['ppo_epochs']} against {row['reference']}, target " \
              f"{plain(float(row['threshold']))}"
    if row["n_batches"] == 0:
        return f"{against}: no batch settles both."
    batches = "1 batch" if row["n_batches"] == 1 else f"{row['n_batches']} batches"
    p = equals(probability(float(row["p_fewer_samples"])))
    return (f"{against}, averaged over {batches}: updates times "
            f"{_estimate(row, 'steps_ratio', 'identified')}, generated samples times "
            f"{_estimate(row, 'samples_ratio', 'identified')}, P(fewer samples) {p}.")


def _diagonal(rows: pd.DataFrame) -> str:
    passes = numbers.count(float(rows["passes_per_step"].iloc[0]))
    start = f"Diagonal of {passes} sample passes per trainer step"
    if rows["p_fewest_samples"].isna().any():
        return f"{start}: a cell of it is not settled, so none is named the best."
    told = []
    for name, what in (("p_fewest_samples", "fewest generated samples"),
                       ("p_fewest_passes", "fewest sample passes")):
        best = rows.iloc[int(np.argmax(rows[name].to_numpy()))]
        told.append(f"{what} at {best['n_prompts']} prompts with reuse {best['ppo_epochs']} "
                    f"(P {equals(probability(float(best[name])))})")
    return f"{start}: {'; '.join(told)}."


def effects_table(effects: pd.DataFrame) -> Table:
    """Return what each reuse factor does on average over batches, at every target."""
    columns = (Column("target"), Column("reuse", True), Column("against", True),
               Column("batches", True), Column("updates ratio", True),
               Column("samples ratio", True), Column("P(fewer samples)", True))
    rows: list[tuple[Cell, ...]] = [
        (Cell(plain(float(row["threshold"]))), Cell(str(row["ppo_epochs"])),
         Cell(str(row["reference"])), Cell(str(row["n_batches"])),
         *(estimate_cell(_estimate(row, name, "identified") if row["n_batches"] else None)
           for name in ("steps_ratio", "samples_ratio")),
         Cell(probability(float(row["p_fewer_samples"])))) for _, row in effects.iterrows()]
    return Table("What each reuse factor does, averaged over the batches that settle both.",
                 columns, rows)


def diagonals_table(diagonals: pd.DataFrame) -> Table:
    """Return the cells of every diagonal of equal optimisation, at every target."""
    columns = (Column("prompts × rollouts"), Column("reuse", True), Column("updates", True),
               Column("samples", True), Column("sample passes", True),
               Column("P(fewest samples)", True), Column("P(fewest passes)", True))
    rows: list[tuple[Cell, ...]] = []
    for _, part in diagonals.groupby(["threshold", "n_rollouts", "passes_per_step"], sort=False):
        passes, target = (float(part[name].iloc[0]) for name in ("passes_per_step", "threshold"))
        rows.append((Cell(f"{numbers.count(passes)} passes per trainer step",
                          f"target {plain(target)}"),))
        rows += [_diagonal_row(row) for _, row in part.iterrows()]
    return Table("Diagonals: cells with as many sample passes per trainer step.", columns, rows)


def _diagonal_row(row: pd.Series) -> tuple[Cell, ...]:
    return (Cell(f"{row['n_prompts']} × {row['n_rollouts']}", mark="indented"),
            Cell(str(row["ppo_epochs"])),
            *(estimate_cell(_estimate(row, name, str(row["status"])))
              for name in ("steps", "samples", "passes")),
            Cell(probability(float(row["p_fewest_samples"]))),
            Cell(probability(float(row["p_fewest_passes"]))))
