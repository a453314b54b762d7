"""Graders that are tried out before a job learns from them."""
