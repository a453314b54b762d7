"""What must agree: one file for each part of the books, in SQL and in Redis."""
