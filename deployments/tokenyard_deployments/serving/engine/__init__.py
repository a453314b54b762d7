"""All that knows the inside of vLLM and Ray, pinned and checked at start."""
