"""What `python -m cbsbayes.validate` is made of.

=============  ===============================================================================
``coverage``   simulated sweeps of named families: how often nominal intervals hold the truth,
               the posterior beside least squares
``sbc``        simulation-based calibration: parameters drawn from the prior, data from the
               parameters, ranks of the parameters in the posterior of the data
``seeds``      real runs: one seed of every batch redrawn, all seeds as the reference
=============  ===============================================================================

`posterior.posterior_tree` is the interface to the models, `engine` runs hundreds of fits in
processes or on a cluster, `ledger` keeps what is finished, `page` writes the tables.
"""

from __future__ import annotations
