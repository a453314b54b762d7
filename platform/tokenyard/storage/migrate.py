"""Brings a database to the newest revision of the one linear Alembic history."""

from pathlib import Path

from alembic import command
from alembic.config import Config

_MIGRATIONS = Path(__file__).parent / "migrations"


def alembic_config(url: str) -> Config:
    """Return Alembic's configuration for the database at `url` (a SQLAlchemy async URL)."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    # Alembic reads options through ConfigParser, to which a lone % is an error.
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    return config


def upgrade(url: str) -> None:
    """Apply all revisions that are missing. Call it without a running event loop."""
    command.upgrade(alembic_config(url), "head")
