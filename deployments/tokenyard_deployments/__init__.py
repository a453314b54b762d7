"""Runs inside Ray: model serving and training."""
