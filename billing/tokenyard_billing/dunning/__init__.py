"""What follows when an invoice is not paid in time."""
