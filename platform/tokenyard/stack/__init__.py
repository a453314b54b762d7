"""Runs the whole platform on one machine: what `tokenyard up` starts, watches and stops."""
