"""Wall clock: how long a step takes at a batch, and time and cost until the target is reached."""
