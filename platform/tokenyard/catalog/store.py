"""Adapters and aliases of one organization, as values for the request path and as the API shows them."""

from collections.abc import Mapping, Sequence

import msgspec
from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.catalog.changes import ModelsChanged, write_change
from tokenyard.catalog.tables import AdapterRow, AdapterState, AliasRow, RevisionRow
from tokenyard.catalog.views import AliasView
from tokenyard.core.adapters import AdapterRef
from tokenyard.core.clock import Clock
from tokenyard.core.errors import Conflict, NotFound
from tokenyard.core.ids import AdapterId, JobId, OrganizationId, ProjectId
from tokenyard.storage.bulk import add_up
from tokenyard.storage.database import Database, Fence
from tokenyard.storage.transactional_outbox import OutboxMessage

MAX_ALIASES = 1000


class Adapter(msgspec.Struct, frozen=True):
    """A tenant's fine-tuned model. Times are unix milliseconds."""

    ref: AdapterRef
    organization: OrganizationId
    base: str
    created_ms: int
    live_ms: int | None

    @classmethod
    def of(cls, row: AdapterRow) -> "Adapter":
        return cls(
            ref=AdapterRef(id=AdapterId(row.id), name=row.name, path=row.path, digest=row.digest),
            organization=OrganizationId(row.organization),
            base=row.base,
            created_ms=row.created_ms,
            live_ms=row.live_ms,
        )

    @property
    def id(self) -> AdapterId:
        return self.ref.id

    @property
    def name(self) -> str:
        return self.ref.name


class OwnModels(msgspec.Struct, frozen=True):
    """All that one organization may call besides the base models, at one revision."""

    revision: int
    adapters: Mapping[str, Adapter]
    aliases: Mapping[str, str]


class CatalogStore:
    """Every method sees one organization's rows; another's raise `NotFound`, as if they did not exist.

    What changes the models that an organization may call returns what is to be carried.
    """

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
                {row.name: Adapter.of(row) for row in adapters},
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
        fence: Fence | None = None,
    ) -> None:
        """Add an adapter that is to be checked; adding the very same one again changes nothing."""
        async with self._database.transaction() as session:
            if fence is not None:
                await fence(session)
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
                    created_ms=self._clock.now_ms(),
                )
                session.add(row)
            elif row.organization != organization or Adapter.of(row).ref != ref:
                raise Conflict(f"Another adapter has the id {ref.id}.")

    async def promote(
        self, organization: OrganizationId, adapter: AdapterId, fence: Fence | None = None
    ) -> list[OutboxMessage]:
        """Make a checked adapter callable; one that is live already stays so."""
        async with self._database.transaction() as session:
            if fence is not None:
                await fence(session)
            row = await _adapter(session, organization, adapter)
            if row.state == AdapterState.RETIRED:
                raise Conflict(f"The model `{row.name}` is retired.")
            if row.state == AdapterState.LIVE:
                return []
            row.state = AdapterState.LIVE
            row.live_ms = self._clock.now_ms()
            return [await self._bump(session, organization)]

    async def retire(self, organization: OrganizationId, adapter: AdapterId, *, reason: str) -> list[OutboxMessage]:
        """End an adapter for ever, with the aliases that name it; ending it again changes nothing."""
        async with self._database.transaction() as session:
            row = await _adapter(session, organization, adapter)
            if row.state == AdapterState.RETIRED:
                return []
            row.state = AdapterState.RETIRED
            row.retired_ms = self._clock.now_ms()
            row.reason = reason[:1000]
            await session.execute(
                delete(AliasRow).where(AliasRow.organization == organization, AliasRow.adapter == row.id)
            )
            return [await self._bump(session, organization)]

    async def adapter(self, organization: OrganizationId, adapter: AdapterId) -> Adapter:
        """Return one adapter in whatever state."""
        async with self._database.reading() as session:
            return Adapter.of(await _adapter(session, organization, adapter))

    async def set_alias(
        self, organization: OrganizationId, alias: str, *, model: str, adapter: AdapterId | None
    ) -> tuple[AliasView, list[OutboxMessage]]:
        """Let `alias` name a model from now on, whatever it named before; too many aliases raise `Conflict`."""
        async with self._database.transaction() as session:
            if adapter is not None and (await _adapter(session, organization, adapter)).state != AdapterState.LIVE:
                raise NotFound(f"The model `{model}` is not live.")
            row = await session.get(AliasRow, (organization, alias))
            if row is None:
                count = select(func.count()).where(AliasRow.organization == organization)
                if (await session.scalar(count) or 0) >= MAX_ALIASES:
                    raise Conflict(f"An organization can have {MAX_ALIASES} aliases.")
                row = AliasRow(organization=organization, alias=alias, created_ms=self._clock.now_ms())
                session.add(row)
            row.model = model
            row.adapter = adapter
            return AliasView.of(row), [await self._bump(session, organization)]

    async def aliases(self, organization: OrganizationId) -> Sequence[AliasView]:
        """Return all aliases, by name."""
        async with self._database.reading() as session:
            rows = await session.scalars(
                select(AliasRow).where(AliasRow.organization == organization).order_by(AliasRow.alias)
            )
            return [AliasView.of(row) for row in rows]

    async def delete_alias(self, organization: OrganizationId, alias: str) -> list[OutboxMessage]:
        async with self._database.transaction() as session:
            row = await session.get(AliasRow, (organization, alias))
            if row is None:
                raise NotFound(f"No such alias: `{alias}`.")
            await session.delete(row)
            return [await self._bump(session, organization)]

    async def _bump(self, session: AsyncSession, organization: OrganizationId) -> OutboxMessage:
        """Tell caches, in the transaction of the change itself, that what the organization may call has changed."""
        await add_up(session, RevisionRow, [{"organization": organization, "revision": 1}], add=["revision"])
        return await write_change(session, ModelsChanged(organization), self._clock.now_ms())


async def _adapter(session: AsyncSession, organization: OrganizationId, adapter: AdapterId) -> AdapterRow:
    row = await session.scalar(
        select(AdapterRow).where(AdapterRow.organization == organization, AdapterRow.id == adapter)
    )
    if row is None:
        raise NotFound(f"No such adapter: `{adapter}`.")
    return row
