"""Who bills, and who is billed."""
