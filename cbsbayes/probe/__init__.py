"""Gradient noise measured inside verl's actor, at unchanged parameters and with verl's own loss.

`estimators` turns inner products of gradients into noise statistics, `plan` decides which
rollouts make up which gradient on which rank, `accumulate` adds gradients up, `engine` hangs the
probe into verl's FSDP engine and `plugin` is what verl loads. Switched on by environment
variables, see `cbsbayes.probe.plan.ProbeSettings`.

It runs in the trainer's processes and imports torch and verl; nothing of the analysis imports it.
"""
