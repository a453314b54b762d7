"""What a client's schema or regular expression may cost: tried out apart from the engine before it gets in."""
