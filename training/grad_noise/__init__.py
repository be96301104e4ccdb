"""Gradient noise measured inside verl's actor, at unchanged parameters and with verl's own loss.

`estimators` turns inner products of gradients into noise statistics, `plan` decides which
rollouts make up which gradient on which rank, `accumulate` adds gradients up, `mixin` hangs the
probe into verl's engine and `plugin` registers that engine on NVIDIA GPUs. Switched on by the
environment, see `settings`.
"""
