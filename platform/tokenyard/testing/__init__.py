"""Fakes that users' tests and ours share."""
