"""A study: many sweeps of one kind, their table, and how sampling went."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import xarray as xr

from cbsbayes.models.laws import get_law
from cbsbayes.posterior.fit import versions
from cbsbayes.validation import calibration, coverage, seeds
from cbsbayes.validation.coverage import Settings
from cbsbayes.validation.engine import Ledger, Work, run_sweeps

__all__ = ["LABELS", "Outcome", "Study", "calibration_study", "coverage_study", "rows_of",
           "run_study", "sampling_summary", "seeds_study"]

LABELS = {"coverage": "family", "sbc": "design", "seeds": "table"}
"""Kinds of studies, and the column that says on what data each was made."""


@dataclass(frozen=True)
class Study:
    """What every sweep of a study shares.

    Attributes
    ----------
    kind : {"coverage", "sbc", "seeds"}
        What is done.
    data : str
        Family, design or name of the table.
    settings : Settings
        How sweeps are fitted.
    work : callable
        From a random seed to the record of a sweep.
    facts : mapping
        What else all sweeps share, such as a digest of the table.
    """

    kind: str
    data: str
    settings: Settings
    work: Work
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of its files."""
        return f"{self.kind}-{self.data}-{self.settings.law}-{self.model}"

    @property
    def model(self) -> str:
        """The model's name in tables and files, with ceilings by group size where it has them."""
        return self.settings.model + ("-ceilings" if self.settings.ceiling_by_group else "")

    def all_settings(self) -> dict[str, Any]:
        """Return everything that must agree between the sweeps of a table."""
        return {"kind": self.kind, "data": self.data, **self.settings.as_dict(),
                "model": self.model, **self.facts, "cbsbayes": versions()["cbsbayes"]}


class Outcome(NamedTuple):
    """A study that was run.

    Attributes
    ----------
    study : Study
        Which.
    table : pandas.DataFrame
        Of `coverage.coverage_table` or `calibration.rank_table`.
    rows : pandas.DataFrame
        Of all finished sweeps, with a column ``sweep``.
    summary : dict
        Of `sampling_summary`.
    """

    study: Study
    table: pd.DataFrame
    rows: pd.DataFrame
    summary: dict[str, Any]


def coverage_study(family: str, settings: Settings) -> Study:
    """Return the study of a family of simulated truth."""
    every = f"_every_{settings.eval_every}" if settings.eval_every else ""
    return Study("coverage", family + every, settings,
                 partial(coverage.simulated_sweep, family, settings), {"family": family}
                 if every else {})


def calibration_study(settings: Settings) -> Study:
    """Return the simulation-based calibration of a model under a law."""
    design = "all" if get_law(settings.law).two_axis else "batch"
    return Study("sbc", design, settings, partial(calibration.calibration_sweep, settings))


def seeds_study(ds: xr.Dataset, name: str, settings: Settings) -> Study:
    """Return the study of redrawn seeds of a table."""
    return Study("seeds", name, settings, partial(seeds.redrawn_sweep, ds, settings),
                 {"digest": str(ds.attrs["digest"])})


def run_study(
    study: Study, wanted: Sequence[int], folder: Path, pool: Executor,
    advance: Callable[[], object] = lambda: None,
) -> Outcome:
    """Run what is missing of a study and return its table.

    Parameters
    ----------
    study : Study
        What to run.
    wanted : sequence of int
        Random seeds of its sweeps; the table holds these, whatever else the ledger has.
    folder : Path
        Where ``sweeps/`` with the ledger is.
    pool : Executor
        Of `engine.executor`.
    advance : callable
        Called for every sweep when it is there.
    """
    ledger = Ledger(folder / "sweeps" / f"{study.name}.jsonl", study.all_settings())
    run_sweeps(study.work, wanted, ledger, pool, advance)
    records = [ledger.records[seed] for seed in wanted]
    columns, table = ((calibration.COLUMNS, calibration.rank_table) if study.kind == "sbc"
                      else (coverage.COLUMNS, coverage.coverage_table))
    rows = rows_of(records, columns)
    return Outcome(study, table(rows), rows, sampling_summary(records))


def rows_of(records: Iterable[dict[str, Any]], columns: tuple[str, ...]) -> pd.DataFrame:
    """Return the rows of finished sweeps as one table with a column ``sweep``."""
    rows = [[*row, record["seed"]] for record in records for row in record.get("rows", [])]
    return pd.DataFrame(rows, columns=[*columns, "sweep"])


def sampling_summary(records: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return how the sampling of all sweeps went, and which sweeps failed and why."""
    records = list(records)
    done = pd.DataFrame([record["sampling"] for record in records if "sampling" in record])
    worst = {"seconds_median": ("seconds", "median"), "seconds_max": ("seconds", "max"),
             "divergences": ("divergences", "sum"), "r_hat_worst": ("r_hat_max", "max"),
             "ess_bulk_worst": ("ess_bulk_min", "min"), "alarms": ("alarm", "sum"),
             "structure_alarms": ("structure_alarm", "sum")}
    failed = {str(record["seed"]): record["error"] for record in records if "error" in record}
    return {"sweeps": len(done), "failed": failed, **{
        name: round(float(done[column].agg(how)), 3)
        for name, (column, how) in worst.items() if column in done}}
