"""How large a batch still pays in RLVR, along prompts and along rollouts, and how sure we are.

>>> import cbsbayes as cb                                  # doctest: +SKIP
>>> fit = cb.fit_sweep(cb.read_sweep("sweep.nc"))          # doctest: +SKIP
>>> fit.cbs                                                # doctest: +SKIP
>>> cb.plots.plot_steps(fit)                               # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["CBSDataError", "CBSWarning", "Fit", "SamplerSettings", "default_sweep_path",
           "fit_sweep", "ingest", "plots", "read_sweep", "simulate_sweep", "write_fit",
           "write_sweep"]
__version__ = "0.1.0"

_HOMES = {  # imported on first use: --help must not wait for PyMC
    "CBSDataError": "errors", "CBSWarning": "errors", "Fit": "result", "fit_sweep": "fitting",
    "SamplerSettings": "sampling", "default_sweep_path": "shipped", "ingest": "ingest",
    "read_sweep": "store", "write_sweep": "store", "simulate_sweep": "simulate",
    "write_fit": "output",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module."""
    if name == "plots":
        return importlib.import_module("cbsbayes.plots")
    if name in _HOMES:
        return getattr(importlib.import_module(f"cbsbayes.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'cbsbayes' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__
