"""PyMC models: what the data say about S(P, G) and its noise scales."""
