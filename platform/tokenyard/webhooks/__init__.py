"""Webhooks: what happened on the platform is told to the organization's own servers, signed and again until heard."""
