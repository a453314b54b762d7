"""Taxes: published rates, organizations' profiles, and what they come to."""
