"""From usage events to charges, exactly once."""
