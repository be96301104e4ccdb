"""The fit: draws, what is read off them, and the verdict on them."""
