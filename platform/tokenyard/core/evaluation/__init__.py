"""What answers are worth: figures of text against text, without a model."""
