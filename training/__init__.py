"""Sweeps of real verl runs: definitions, launching, the CPU twin, the probe in verl's actor.

``python -m training.sweep`` lists the phases. The only product of this folder is log files that
``python -m cbsbayes.ingest`` reads; nothing here imports PyMC or ArviZ, and nothing that lists,
prints or prepares imports torch or verl.
"""
