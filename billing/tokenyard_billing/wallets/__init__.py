"""What organizations may spend: wallets, reservations, and budgets as SQL has them."""
