"""Fetches, converts and describes base models."""
