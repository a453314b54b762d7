"""Deliveries: which one is sent next, how it is sent, and what becomes of it."""
