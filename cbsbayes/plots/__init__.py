"""Figures of the domain: one plot per file, axes in, axes out.

Every ``plot_*`` takes a fit (or, where that is enough, a sweep), draws into ``ax`` or into a
new figure, and returns the axes; grids return the figure. A figure that the data cannot
give raises `CBSDataError` with the reason. Matplotlib is imported with the first plot, not
with the package.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_MODULES = {
    "all_figures": "gallery",
    "GalleryItem": "gallery",
    "detached": "style",
    "figure_bytes": "files",
    "figure_files": "files",
    "plot_cbs_against_threshold": "cbs",
    "plot_clock_map": "clock_map",
    "plot_comparison": "comparison",
    "plot_convergence": "diagnostics",
    "plot_crossing_check": "predictive",
    "plot_energy": "diagnostics",
    "plot_forest": "forest",
    "plot_front": "front",
    "plot_gains": "gains",
    "plot_gradient_noise": "gradient_noise",
    "plot_gradient_noise_grid": "gradient_noise",
    "plot_iso_batch": "iso_batch",
    "plot_iso_batch_steps": "iso_batch",
    "plot_law_comparison": "laws",
    "plot_noise_against_fit": "noise_against_fit",
    "plot_noise_bias": "noise_bias",
    "plot_noise_joint": "noise_joint",
    "plot_plan": "plan",
    "plot_prior_posterior": "prior_posterior",
    "plot_ranks": "diagnostics",
    "plot_run_effects": "run_effects",
    "plot_samples": "samples",
    "plot_split_choice": "split_choice",
    "plot_step_time": "wall_clock",
    "plot_steps": "steps",
    "plot_trace": "diagnostics",
    "plot_training_curves": "training",
    "plot_training_phase": "training",
    "plot_time_cost": "time_cost",
    "plot_wall_clock": "wall_clock",
}

__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    """Import the module of a plot when the plot is first asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
