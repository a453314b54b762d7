"""Graders: what an answer of a model is worth, as a number. OpenAI's shapes, and nothing that runs a tenant's code."""
