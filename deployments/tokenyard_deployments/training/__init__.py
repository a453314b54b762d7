"""The Ray Train job that makes an adapter."""
