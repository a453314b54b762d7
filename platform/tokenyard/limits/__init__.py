"""Rate limits, concurrency and holds: one script to admit a request, one to settle it."""
