"""Tables of finetune."""
