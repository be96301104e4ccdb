"""The sweep dataset: its schema, how logs become it, and its files."""
