"""The platform's own HTTP API, as the command line, `tokenyard-train`, the first start and the dashboard call it."""
