"""Sweeps with known truth."""
