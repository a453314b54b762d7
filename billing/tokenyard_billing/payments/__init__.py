"""Payments through a provider: of invoices, and of credit."""
