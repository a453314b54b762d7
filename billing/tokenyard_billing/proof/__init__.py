"""Checks of the books, and the story behind each charge."""
