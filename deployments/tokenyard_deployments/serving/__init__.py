"""vLLM replicas under Ray Serve."""
