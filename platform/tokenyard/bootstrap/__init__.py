"""Wires implementations to ports, one file a process."""
