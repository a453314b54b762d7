"""How good a tuned model is."""
