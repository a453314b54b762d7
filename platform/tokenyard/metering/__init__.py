"""Usage on its way to the ledger: events, the signed meter header, the stream."""
