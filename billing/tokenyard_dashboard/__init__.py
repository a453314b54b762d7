"""The operator's pages: a client of the platform's HTTP API and of nothing else."""
