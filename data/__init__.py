"""Measured sweeps that ship with the repository, and what prepares training data."""
