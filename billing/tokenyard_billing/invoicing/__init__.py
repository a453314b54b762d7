"""Invoices from charges."""
