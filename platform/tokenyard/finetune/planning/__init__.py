"""What a job will take, and whose is next."""
