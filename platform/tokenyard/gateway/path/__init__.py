"""The stages that every paid request goes through, one a file; the first, authentication, is `web.auth` alone."""
