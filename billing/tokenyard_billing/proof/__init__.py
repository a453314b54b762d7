"""Checks of the books, and the evidence behind each charge."""
