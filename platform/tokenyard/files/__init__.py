"""Uploaded files: kept, listed, read and deleted, whatever they are for."""
