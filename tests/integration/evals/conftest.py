"""Evals on a socket."""

from support.evals.fixtures import clients, evals

__all__ = ["clients", "evals"]
