"""Whose key a request carries: looked up, lent, or made up."""
