"""Prices, rating, ledger, invoices."""
