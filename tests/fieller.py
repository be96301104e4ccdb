"""Fieller's interval of a ratio of two averages, the exact answer that noise scales are held to."""

import math

import numpy as np


def fieller(x, y, covariance, quantile):
    """Return both ends of the set {q: (x - q y)^2 <= quantile^2 var(x - q y)}, x / y not negative.

    The upper end is infinite where y is not told from zero.
    """
    a = y * y - quantile**2 * covariance[1, 1]
    b = x * y - quantile**2 * covariance[0, 1]
    c = x * x - quantile**2 * covariance[0, 0]
    if y > 0 and a > 0:
        root = math.sqrt(max(b * b - a * c, 0.0))
        return (b - root) / a, (b + root) / a
    if a <= 0 < c and x > 0:
        return c / (b + math.sqrt(b * b - a * c)), np.inf
    return 0.0, np.inf
