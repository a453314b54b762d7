"""An issued invoice with all that proves it, as a file that its organization verifies by itself."""
