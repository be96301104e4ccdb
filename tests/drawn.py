"""Ask axes what they show, by the gid of artists."""

from __future__ import annotations

import numpy as np


def lines(ax, gid):
    return [line for line in ax.lines if line.get_gid() == gid]


def points(ax, gid):
    """Return all points of a kind, sorted, shape (point, 2)."""
    xy = [np.asarray(line.get_xydata(), dtype=float) for line in lines(ax, gid)]
    flat = np.concatenate(xy) if xy else np.empty((0, 2))
    return flat[np.lexsort(flat.T[::-1])]


def texts(ax):
    return [text.get_text() for text in ax.texts]


def legend(ax):
    """Return the labels of the figure's and the axes' legends."""
    legends = [*ax.figure.legends, *([ax.get_legend()] if ax.get_legend() else [])]
    return [text.get_text() for one in legends for text in one.get_texts()]


def title(ax):
    return ax.get_title(loc="left")
