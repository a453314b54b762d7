"""Which replica gets a request: what each holds, what each has to do, and what each organization has had of it."""
