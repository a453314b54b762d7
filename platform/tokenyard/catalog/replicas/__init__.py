"""Where replicas are, what they hold, and what they should hold."""
