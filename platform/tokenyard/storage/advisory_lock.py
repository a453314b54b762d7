"""Lets one transaction at a time decide something, on SQLite and PostgreSQL alike."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.ids import OrganizationId

_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")


async def advisory_lock(session: AsyncSession, name: str) -> None:
    """Wait until no other writing transaction holds the lock `name`, and hold it until this one ends.

    SQLite has one writer at a time (`Database.transaction` begins IMMEDIATE), so it needs no lock.
    """
    if session.get_bind().dialect.name == "postgresql":
        await session.execute(_LOCK, {"name": name})


async def organization_lock(session: AsyncSession, organization: OrganizationId) -> None:
    """Hold the lock of an organization's files and jobs: no job may begin with a file that is being deleted."""
    await advisory_lock(session, f"organization:{organization}")
