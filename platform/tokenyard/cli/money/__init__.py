"""Commands of prices, usage, invoices and the books."""
