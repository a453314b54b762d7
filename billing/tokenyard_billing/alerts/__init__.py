"""Tells organizations how much of their budgets they have used."""
