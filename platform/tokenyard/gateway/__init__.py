"""The request path: authenticate, resolve, admit, route, relay, settle."""
