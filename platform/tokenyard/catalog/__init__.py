"""Base models, adapters and where they are served."""
