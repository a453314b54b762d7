"""Runs of evals: what is asked and graded, and what came of each row."""
