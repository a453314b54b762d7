"""Fine-tuning jobs and their way to a live model."""
