"""How large a batch still pays in RLVR, along prompts and along rollouts, and how sure we are.

>>> import cbsbayes as cb                                  # doctest: +SKIP
>>> fit = cb.fit("sweep.nc")                               # doctest: +SKIP
>>> fit.summary()                                          # doctest: +SKIP
>>> cb.allocate(fit).tables["splits"]                      # doctest: +SKIP
>>> cb.plan(fit).runs                                      # doctest: +SKIP
>>> cb.plots.plot_steps(fit)                               # doctest: +SKIP
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

__all__ = ["CBSDataError", "Fit", "SamplerSettings", "allocate", "compare", "default_sweep_path",
           "fit", "fit_sweep", "plan", "plots", "read_logs", "read_sweep", "simulate_sweep",
           "write_fit", "write_sweep"]
__version__ = "0.1.0"

_HOMES = {  # module and name, imported on first use: --help must not wait for PyMC
    "CBSDataError": ("errors", "CBSDataError"),
    "Fit": ("posterior.fit", "Fit"), "SamplerSettings": ("inference.sampling", "SamplerSettings"),
    "allocate": ("decisions.decision", "decide"),
    "compare": ("decisions.compare_fits", "compare_fits"),
    "default_sweep_path": ("sweep.files", "default_sweep_path"),
    "fit": ("posterior.fit_sweep", "fit_sweep"),
    "fit_sweep": ("posterior.fit_sweep", "fit_sweep"),
    "plan": ("decisions.next_runs", "plan_runs"),
    "read_logs": ("ingest", "ingest"),
    "read_sweep": ("sweep.files", "read_sweep"),
    "simulate_sweep": ("simulation.sweep", "simulate_sweep"),
    "write_fit": ("report.folder", "write_fit"), "write_sweep": ("sweep.files", "write_sweep"),
}


class _Package(ModuleType):
    """The package: ``cb.fit`` stays the function when the command's module is imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _HOMES:
            super().__setattr__(name, value)


def __getattr__(name: str) -> Any:
    """Import a public name from its module."""
    if name == "plots":
        return importlib.import_module("cbsbayes.plots")
    if name in _HOMES:
        module, attribute = _HOMES[name]
        return getattr(importlib.import_module(f"cbsbayes.{module}"), attribute)
    raise AttributeError(f"module 'cbsbayes' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__


sys.modules[__name__].__class__ = _Package
