"""The work on jobs: who has which, for how long, and how far it has come."""
