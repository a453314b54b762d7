"""A tenant of the books in SQL, with a key: what dunning blocks."""

from sqlalchemy.ext.asyncio import AsyncSession

from support.billing.stand import ACME, KEY, PROJECT
from tokenyard.core.principal import Limits, Principal
from tokenyard.storage.database import Database
from tokenyard.tenancy.plans.combination import credential_of
from tokenyard.tenancy.tables import ApiKeyRow, OrganizationRow, ProjectRow


async def add_tenant(database: Database) -> None:
    async with database.transaction() as session:
        session.add(
            OrganizationRow(
                id=ACME, slug="acme", name="Acme", default_project_id=PROJECT, limits=Limits(), created_at=1
            )
        )
        await session.flush()
        session.add(ProjectRow(id=PROJECT, organization_id=ACME, name="p", limits=Limits(), created_at=1))
        await session.flush()
        session.add(
            ApiKeyRow(
                id=KEY,
                organization_id=ACME,
                project_id=PROJECT,
                role="tenant",
                name="k",
                last4="abcd",
                hash="h",
                pepper_version=1,
                limits=Limits(),
                created_at=1,
            )
        )


async def tenant(database: Database) -> Principal:
    """Return who holds the key now."""
    async with database.reading() as session:
        holder = credential_of(*await _rows(session), None)
    assert holder is not None
    assert isinstance(holder.holder, Principal)
    return holder.holder


async def _rows(session: AsyncSession) -> tuple[ApiKeyRow, ProjectRow, OrganizationRow]:
    return (
        await session.get_one(ApiKeyRow, KEY),
        await session.get_one(ProjectRow, PROJECT),
        await session.get_one(OrganizationRow, ACME),
    )
