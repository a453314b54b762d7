"""Adapters on a CPU, in place of what vLLM has there."""
