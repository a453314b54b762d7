"""How much an organization keeps, and how much of it it may."""

from collections.abc import Callable

from sqlalchemy import ScalarSelect, select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.errors import QuotaExceeded
from tokenyard.core.ids import OrganizationId
from tokenyard.storage.database import Database, organization_lock

StoredBytes = Callable[[OrganizationId], ScalarSelect[int]]
"""Returns a query of how many bytes an organization keeps, of the kind that one slice knows of."""


class StorageUse:
    """What organizations keep, of all `kinds` together."""

    def __init__(self, *kinds: StoredBytes) -> None:
        self._kinds = kinds

    async def of(self, session: AsyncSession, organization: OrganizationId) -> int:
        """Return how many bytes the organization keeps now."""
        row = (await session.execute(select(*(kind(organization) for kind in self._kinds)))).one()
        return sum(map(int, row))


class StorageQuota:
    """At most `max_bytes` for each organization, of all `kinds` together."""

    def __init__(self, database: Database, max_bytes: int, *kinds: StoredBytes) -> None:
        self._database = database
        self._max_bytes = max_bytes
        self._use = StorageUse(*kinds)

    async def check(self, organization: OrganizationId, more_bytes: int, *, param: str) -> None:
        """Raise `QuotaExceeded` where there is no room for so many bytes more now."""
        async with self._database.reading() as session:
            await self._check(session, organization, more_bytes, param)

    async def take(self, session: AsyncSession, organization: OrganizationId, more_bytes: int, *, param: str) -> None:
        """Do so in a transaction that then writes them down: what comes at once must each count the others."""
        await organization_lock(session, organization)
        await self._check(session, organization, more_bytes, param)

    async def _check(self, session: AsyncSession, organization: OrganizationId, more_bytes: int, param: str) -> None:
        if await self._use.of(session, organization) + more_bytes > self._max_bytes:
            raise QuotaExceeded(
                f"Your organization's files and fine-tuned models have reached the limit of {self._max_bytes} bytes."
                " Delete some.",
                code="storage_quota_exceeded",
                param=param,
            )
