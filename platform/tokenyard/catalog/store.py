"""Adapters and aliases of one organization."""

from collections.abc import Sequence

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.catalog.rows import adapter_view, bump_revision
from tokenyard.catalog.tables import AdapterRow, AliasRow, RevisionRow
from tokenyard.catalog.views import Adapter, AdapterState, Alias, OwnModels
from tokenyard.core.adapters import AdapterRef
from tokenyard.core.clock import Clock
from tokenyard.core.errors import Conflict, NotFound
from tokenyard.core.ids import AdapterId, JobId, OrganizationId, ProjectId
from tokenyard.storage.database import Database

MAX_ALIASES = 1000


class CatalogStore:
    """Every method sees one organization's rows; another's look as if they did not exist."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def own_models(self, organization: OrganizationId, known: OwnModels | None) -> OwnModels:
        """Return what the organization may call; `known` itself where nothing changed since."""
        async with self._database.reading() as session:
            revision = await session.scalar(
                select(RevisionRow.revision).where(RevisionRow.organization == organization)
            )
            if known is not None and known.revision == (revision or 0):
                return known
            adapters = await session.scalars(
                select(AdapterRow)
                .where(AdapterRow.organization == organization, AdapterRow.state == AdapterState.LIVE)
                .order_by(AdapterRow.created_ms, AdapterRow.id)
            )
            aliases = await session.scalars(select(AliasRow).where(AliasRow.organization == organization))
            return OwnModels(
                revision or 0,
                {row.name: adapter_view(row) for row in adapters},
                {row.alias: row.model for row in aliases},
            )

    async def add_adapter(
        self,
        organization: OrganizationId,
        ref: AdapterRef,
        *,
        project: ProjectId,
        job: JobId,
        base: str,
    ) -> Adapter:
        """Add an adapter that is to be checked; adding the very same one again changes nothing.

        Raises:
            Conflict: another adapter has this id.
        """
        async with self._database.transaction() as session:
            row = await session.get(AdapterRow, ref.id)
            if row is None:
                row = AdapterRow(
                    id=ref.id,
                    organization=organization,
                    project=project,
                    job=job,
                    base=base,
                    name=ref.name,
                    path=ref.path,
                    digest=ref.digest,
                    state=AdapterState.CHECKING,
                    created_ms=self._now_ms(),
                )
                session.add(row)
            elif (row.organization, row.name, row.path, row.digest) != (
                organization,
                ref.name,
                ref.path,
                ref.digest,
            ):
                raise Conflict(f"Another adapter has the id {ref.id}.")
            return adapter_view(row)

    async def promote(self, organization: OrganizationId, adapter: AdapterId) -> Adapter:
        """Make a checked adapter callable; one that is live already stays so.

        Raises:
            NotFound: the organization has no such adapter.
            Conflict: it is retired.
        """
        async with self._database.transaction() as session:
            row = await _adapter(session, organization, adapter)
            if row.state == AdapterState.RETIRED:
                raise Conflict(f"The model `{row.name}` is retired.")
            if row.state != AdapterState.LIVE:
                row.state = AdapterState.LIVE
                row.live_ms = self._now_ms()
                await self._bump(session, organization)
            return adapter_view(row)

    async def retire(self, organization: OrganizationId, adapter: AdapterId, *, reason: str) -> Adapter:
        """End an adapter for ever, with the aliases that name it; ending it again changes nothing.

        Raises:
            NotFound: the organization has no such adapter.
        """
        async with self._database.transaction() as session:
            row = await _adapter(session, organization, adapter)
            if row.state != AdapterState.RETIRED:
                row.state = AdapterState.RETIRED
                row.retired_ms = self._now_ms()
                row.reason = reason[:1000]
                await session.execute(
                    delete(AliasRow).where(AliasRow.organization == organization, AliasRow.adapter == row.id)
                )
                await self._bump(session, organization)
            return adapter_view(row)

    async def adapter(self, organization: OrganizationId, adapter: AdapterId) -> Adapter:
        """Return one adapter in whatever state.

        Raises:
            NotFound: the organization has no such adapter.
        """
        async with self._database.reading() as session:
            return adapter_view(await _adapter(session, organization, adapter))

    async def set_alias(
        self, organization: OrganizationId, alias: str, *, model: str, adapter: AdapterId | None
    ) -> Alias:
        """Let `alias` name a model from now on, whatever it named before.

        Raises:
            NotFound: the organization has no such live adapter.
            Conflict: the organization has too many aliases.
        """
        async with self._database.transaction() as session:
            if adapter is not None and (await _adapter(session, organization, adapter)).state != AdapterState.LIVE:
                raise NotFound(f"The model `{model}` is not live.")
            row = await session.get(AliasRow, (organization, alias))
            if row is None:
                count = select(func.count()).where(AliasRow.organization == organization)
                if (await session.scalar(count) or 0) >= MAX_ALIASES:
                    raise Conflict(f"An organization can have {MAX_ALIASES} aliases.")
                row = AliasRow(organization=organization, alias=alias, created_ms=self._now_ms())
                session.add(row)
            row.model = model
            row.adapter = adapter
            await self._bump(session, organization)
            return Alias(row.alias, row.model, row.created_ms)

    async def aliases(self, organization: OrganizationId) -> Sequence[Alias]:
        """Return all aliases, by name."""
        async with self._database.reading() as session:
            rows = await session.scalars(
                select(AliasRow).where(AliasRow.organization == organization).order_by(AliasRow.alias)
            )
            return [Alias(row.alias, row.model, row.created_ms) for row in rows]

    async def delete_alias(self, organization: OrganizationId, alias: str) -> None:
        """Forget an alias.

        Raises:
            NotFound: the organization has none of this name.
        """
        async with self._database.transaction() as session:
            row = await session.get(AliasRow, (organization, alias))
            if row is None:
                raise NotFound(f"No such alias: `{alias}`.")
            await session.delete(row)
            await self._bump(session, organization)

    async def _bump(self, session: AsyncSession, organization: OrganizationId) -> None:
        await bump_revision(session, organization, is_sqlite=self._database.is_sqlite)

    def _now_ms(self) -> int:
        return self._clock.now_ms()


async def _adapter(session: AsyncSession, organization: OrganizationId, adapter: AdapterId) -> AdapterRow:
    row = await session.scalar(
        select(AdapterRow).where(AdapterRow.organization == organization, AdapterRow.id == adapter)
    )
    if row is None:
        raise NotFound(f"No such adapter: `{adapter}`.")
    return row
