"""Invoices as documents: PDF for the files, HTML for the screen."""
