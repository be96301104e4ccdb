"""Made-up draws of a law's quantities, with and without noise that grows along progress."""

from __future__ import annotations

import numpy as np
import xarray as xr

from cbsbayes.models.parameters import NODE_WEIGHT, path_name

NODES, WEIGHTS = np.polynomial.legendre.leggauss(8)


def posterior(law, growth=0.0, alpha=(0.3, 1.4)):
    """Draws whose noise grows along progress by a factor e^growth; without paths for 0."""
    rng = np.random.default_rng(1)
    shape, dims = (2, 20, 3), ("chain", "draw", "threshold")
    values = {"S_min": (dims, rng.uniform(20, 40, shape)),
              "alpha": (dims[:2], rng.uniform(*alpha, shape[:2]))}
    for name in law.scales:
        path = rng.uniform(20, 400, shape)[..., None] * np.exp(growth * 0.5 * (NODES + 1))
        values[path_name(name)] = ((*dims, "node"), path)
        values[name] = (dims, path @ (0.5 * WEIGHTS))
    ds = xr.Dataset(values, coords={NODE_WEIGHT: ("node", 0.5 * WEIGHTS),
                                    "threshold": [0.6, 0.7, 0.8]})
    return ds if growth else ds.drop_vars([path_name(name) for name in law.scales])
