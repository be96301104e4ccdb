"""Where curves cross targets: rules, intervals, and the targets chosen."""
