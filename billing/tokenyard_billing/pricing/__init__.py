"""Rate cards, prices, and tokens x rate."""
