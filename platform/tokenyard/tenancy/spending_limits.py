"""Who may spend how much in a month: what billing makes monthly budgets from."""

from collections.abc import Mapping

from sqlalchemy import select

from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import NanoDollars
from tokenyard.storage.database import Database
from tokenyard.tenancy.tables import ApiKeyRow, OrganizationRow, ProjectRow
from tokenyard.tenancy.views import read_limits


class SpendingLimits:
    """Reads the monthly limits of one organization and everything in it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def monthly(self, organization: OrganizationId) -> Mapping[str, NanoDollars]:
        """Return the monthly limit of each scope that has one: of the organization, its projects and its live keys."""
        queries = (
            select(OrganizationRow.id, OrganizationRow.limits).where(OrganizationRow.id == organization),
            select(ProjectRow.id, ProjectRow.limits).where(ProjectRow.organization == organization),
            select(ApiKeyRow.id, ApiKeyRow.limits).where(
                ApiKeyRow.organization == organization, ApiKeyRow.revoked.is_(None)
            ),
        )
        found: dict[str, NanoDollars] = {}
        async with self._database.reading() as session:
            for query in queries:
                for scope, stored in await session.execute(query):
                    spend = read_limits(stored).monthly_spend
                    if spend is not None:
                        found[scope] = spend
        return found
