"""Clients of other systems: model servers, Ray."""
