"""Daily seals: what was recorded on a day, in a chain of hashes, so that a later change of it shows."""
