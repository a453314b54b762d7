"""Evals: rows of a tenant's, what models answer to them, and graders that say what an answer is worth."""
