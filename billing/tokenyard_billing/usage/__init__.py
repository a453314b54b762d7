"""Charged usage, summed."""
