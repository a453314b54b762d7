"""The stages that every paid request goes through, one a file."""
