"""What stands in front of the engine: bearer, meter header, bounds, internal routes."""
