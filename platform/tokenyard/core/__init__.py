"""Pure kernel: ids, money, prices, usage events, errors. No I/O."""
