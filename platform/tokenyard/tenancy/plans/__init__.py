"""Plans, and how limits and allowed models combine."""
