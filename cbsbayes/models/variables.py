"""Names of what a posterior holds beside its parameters, where noise changes along progress."""

from __future__ import annotations

__all__ = ["CURVE", "INITIAL_ACCURACY", "NODE_WEIGHT", "PROGRESS", "SATURATION", "now_name",
           "path_name"]

NODE_WEIGHT = "node_weight"
"""Coordinate of the nodes of progress up to a threshold: their shares, summing to one."""

SATURATION = "ceiling_loss"
"""λ of the share exp(-λ/G) of endless groups' gain that groups of G can reach."""

CURVE, INITIAL_ACCURACY, PROGRESS = "curve", "curve_start", "progress"
"""Accuracy shown along progress, the accuracy before training, and the dimension."""


def path_name(scale: str) -> str:
    """Return the name of a noise scale along progress, dims (…, threshold, node)."""
    return f"{scale}_path"


def now_name(scale: str) -> str:
    """Return the name of a momentary noise scale, dims (…, progress)."""
    return f"{scale}_now"
