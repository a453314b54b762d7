"""Answers that their clients want to find again: responses, the conversations they make, and chat completions."""
