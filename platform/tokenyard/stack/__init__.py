"""The processes of one embedded installation."""
