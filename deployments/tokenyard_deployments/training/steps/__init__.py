"""Which rows each step takes, how they are shared between workers, and how many tokens they are."""
