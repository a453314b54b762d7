"""Training files: their lines, and what a check of them finds."""
