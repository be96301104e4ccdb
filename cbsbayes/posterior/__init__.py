"""The fit: draws, what is read off them, and how far they can be trusted."""
