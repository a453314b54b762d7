"""What `deployments/models/<id>.yaml` says: where a model comes from, how it runs, and how the file is read."""
