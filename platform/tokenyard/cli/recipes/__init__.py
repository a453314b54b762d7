"""`tokenyard recipe`: ready fine-tunes, run through the public API and measured on held-out rows."""
