"""Checkpoints that can be called: made so while their job runs and after, and taken out of service."""
