"""Corrections of charges, and credit notes."""
