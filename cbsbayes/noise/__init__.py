"""Gradient-noise scales from what runs logged, beside those of the fit."""
