"""The lives of adapters: how they come, and how they end."""
