"""The one linear Alembic history of all tables."""
