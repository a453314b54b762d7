"""The fair scheduler inside the engine: which organization's tokens the next step computes."""
