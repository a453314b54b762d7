"""`Idempotency-Key`: a request that runs on without its client, and is answered again without being run again."""
