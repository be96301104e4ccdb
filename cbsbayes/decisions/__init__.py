"""Which run next: candidates, what each is expected to tell about one quantity, and its price."""
