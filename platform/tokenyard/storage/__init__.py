"""Kernel: SQL, Redis and blobs."""
