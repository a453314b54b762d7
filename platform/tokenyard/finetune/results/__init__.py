"""What a job leaves to its tenant: the metrics of its steps, and the files of its model."""
