"""Names of an organization's own for models, with their history."""
