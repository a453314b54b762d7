"""The double-entry journal and its projections."""
