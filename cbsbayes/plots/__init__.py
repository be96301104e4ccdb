"""Figures of the domain: axes in, axes out.

Every ``plot_*`` takes a fit (or, where that is enough, a sweep), draws into ``ax`` or into a
new figure, and returns the axes; grids return the figure. A figure that the data cannot
give raises `CBSDataError` with the reason. Matplotlib is imported with the first plot, not
with the package.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_MODULES = {
    "allocation": ("plot_front", "plot_plan", "plot_split_choice", "plot_time_cost"),
    "curves": ("plot_gains", "plot_samples", "plot_steps"),
    "diagnostics": ("plot_crossing_check", "plot_law_comparison", "plot_prior_posterior",
                    "plot_run_effects"),
    "estimates": ("plot_cbs_against_threshold", "plot_comparison", "plot_forest",
                  "plot_noise_against_fit"),
    "gallery": ("GalleryItem", "all_figures", "draw_figure", "figure_bytes", "item",
                "page_figures", "write_figure"),
    "map": ("plot_clock_map", "plot_learning_rates", "plot_map"),
    "training": ("plot_gradient_noise", "plot_step_time", "plot_training_curves"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    """Import the module of a plot when the plot is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
