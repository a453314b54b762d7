"""The served base models: their files, and how to get at those that are elsewhere."""
