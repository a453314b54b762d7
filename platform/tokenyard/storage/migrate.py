"""Brings a database to the newest revision of the one linear Alembic history."""

from pathlib import Path

from alembic import command
from alembic.config import Config

from tokenyard.storage.time_limits import MIGRATION_LIMITS, TimeLimits

_MIGRATIONS = Path(__file__).parent / "migrations"


def alembic_config(url: str, limits: TimeLimits = MIGRATION_LIMITS) -> Config:
    """Return Alembic's configuration for the database at `url` (a SQLAlchemy async URL)."""
    config = Config(attributes={"limits": limits})
    config.set_main_option("script_location", str(_MIGRATIONS))
    # Alembic reads options through ConfigParser, to which a lone % is an error.
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    return config


def upgrade(url: str, limits: TimeLimits = MIGRATION_LIMITS) -> None:
    """Apply all revisions that are missing, or none of them. Call it without a running event loop.

    Raises:
        DatabaseDown: a table was in use for too long. Doing it again is fine.
    """
    command.upgrade(alembic_config(url, limits), "head")
