"""How many tokens a prompt has exactly, counted beside the event loop."""
