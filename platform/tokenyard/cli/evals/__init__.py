"""Evals from the command line."""
