"""Which projects may use a fine-tuned model although the list of the models that they may use lacks it."""
