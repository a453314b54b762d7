"""Kernel: HTTP errors, health, metrics, worker loops."""
