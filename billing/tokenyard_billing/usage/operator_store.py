"""Charged usage across organizations."""

from collections.abc import Collection

from tokenyard.core.ids import OrganizationId
from tokenyard.storage.database import Database
from tokenyard_billing.tables import HourlyUsage
from tokenyard_billing.usage.store import UsageFilter, UsageSum, load_sums


class UsageOperatorStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def sums(
        self,
        wanted: UsageFilter,
        organization: OrganizationId | None,
        *,
        width_ms: int,
        group_by: Collection[str],
        limit: int,
    ) -> list[UsageSum]:
        """Return at most `limit` sums over buckets of `width_ms`, and by organization or model."""
        of = () if organization is None else (HourlyUsage.organization == organization,)
        return await load_sums(self._database, wanted, *of, width_ms=width_ms, group_by=group_by, limit=limit)
