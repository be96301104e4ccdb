"""A study: many sweeps of one kind, its table, and where both are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

import cbsbayes
from cbsbayes.models.laws import get_law
from cbsbayes.validation import coverage, sbc, seeds
from cbsbayes.validation.coverage import Settings
from cbsbayes.validation.engine import Work, run_sweeps
from cbsbayes.validation.ledger import Ledger
from cbsbayes.validation.tables import coverage_table, rows_of, sampling_summary

__all__ = ["LABELS", "Outcome", "Study", "calibration_study", "coverage_study", "run_study",
           "seeds_study"]

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

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of a finished sweep's rows."""
        return sbc.COLUMNS if self.kind == "sbc" else coverage.COLUMNS

    def all_settings(self) -> dict[str, Any]:
        """Return everything that must agree between the sweeps of a table."""
        return {"kind": self.kind, "data": self.data, **self.settings.as_dict(),
                "model": self.model, **self.facts, "cbsbayes": cbsbayes.__version__}


@dataclass(frozen=True)
class Outcome:
    """A study that was run.

    Attributes
    ----------
    study : Study
        Which.
    table : pandas.DataFrame
        Of `tables.coverage_table` or `sbc.rank_table`.
    rows : pandas.DataFrame
        Of all finished sweeps, with a column ``sweep``.
    summary : dict
        Of `tables.sampling_summary`: how sampling went, and which sweeps failed and why.
    """

    study: Study
    table: pd.DataFrame
    rows: pd.DataFrame
    summary: dict[str, Any]


def coverage_study(family: str, settings: Settings) -> Study:
    """Return the study of a family of simulated truth."""
    return Study("coverage", family, settings,
                 partial(coverage.simulated_sweep, family, settings))


def calibration_study(settings: Settings) -> Study:
    """Return the simulation-based calibration of a model under a law."""
    design = "all" if get_law(settings.law).two_axis else "batch"
    return Study("sbc", design, settings, partial(sbc.sbc_sweep, settings))


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
    for _ in ledger.finished & set(wanted):
        advance()
    run_sweeps(study.work, wanted, ledger, pool, advance)
    records = [ledger.records[seed] for seed in wanted]
    rows = rows_of(records, study.columns)
    make = sbc.rank_table if study.kind == "sbc" else coverage_table
    return Outcome(study, make(rows), rows, sampling_summary(records))
