"""Training data: rows as shards on disk, and the check of a job's files before it is queued."""
