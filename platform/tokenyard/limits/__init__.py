"""Rate limits, concurrency and holds on budgets."""
