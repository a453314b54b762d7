"""Tokenyard: run your own LLM API business."""
