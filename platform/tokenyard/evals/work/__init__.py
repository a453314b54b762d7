"""The work on runs: reading their rows, asking models, grading."""
