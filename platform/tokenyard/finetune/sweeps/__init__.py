"""Several jobs as one, of which the best is kept."""
