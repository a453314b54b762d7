"""The paid endpoints: what each takes, and how its prompts and usage are counted."""
