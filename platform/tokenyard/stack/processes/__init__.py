"""The processes of a run: what they are, how they are started, watched, asked and ended."""
