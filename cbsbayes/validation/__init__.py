"""What ``python -m cbsbayes.validate`` does.

===============  ===========================================================================
``coverage``     simulated sweeps of named families: how often nominal intervals hold the
                 truth, the posterior beside least squares
``calibration``  simulation-based calibration: parameters drawn from the prior, data from the
                 parameters, ranks of the parameters in the posterior of the data
``seeds``        real runs: one seed of every batch redrawn, all seeds as the reference
===============  ===========================================================================

`models` is the interface to the models and says which quantities are compared, `engine` runs
hundreds of fits in processes or on a cluster and keeps what is finished, `page` writes tables.
"""

from __future__ import annotations
