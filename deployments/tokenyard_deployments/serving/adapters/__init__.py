"""Adapters on a replica: their files, and which the engine holds."""
