"""How large a batch still pays in RLVR, along prompts and along rollouts, and how sure we are.

>>> import cbsbayes as cb                                  # doctest: +SKIP
>>> fit = cb.fit_sweep(cb.read_sweep("sweep.nc"))          # doctest: +SKIP
>>> fit.cbs                                                # doctest: +SKIP
>>> cb.plots.plot_steps(fit)                               # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["CBSDataError", "Fit", "SamplerSettings", "default_sweep_path",
           "fit_sweep", "plots", "read_logs", "read_sweep", "simulate_sweep", "write_fit",
           "write_sweep"]
__version__ = "0.1.0"

_HOMES = {  # module and name, imported on first use: --help must not wait for PyMC
    "CBSDataError": ("errors", "CBSDataError"),
    "Fit": ("posterior.fit", "Fit"), "SamplerSettings": ("inference.sampling", "SamplerSettings"),
    "default_sweep_path": ("sweep.shipped", "default_sweep_path"),
    "fit_sweep": ("posterior.fit_sweep", "fit_sweep"),
    "read_logs": ("ingest", "ingest"),  # `ingest` itself is the module once it is imported
    "read_sweep": ("sweep.files", "read_sweep"),
    "simulate_sweep": ("simulation.sweep", "simulate_sweep"),
    "write_fit": ("report.folder", "write_fit"), "write_sweep": ("sweep.files", "write_sweep"),
}


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
