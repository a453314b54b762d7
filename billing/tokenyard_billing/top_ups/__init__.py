"""Credit that organizations buy through the provider: once, or whenever little is left."""
