"""Adapters of one organization, and all that it may call, as values for the request path."""

from collections.abc import Iterable, Mapping

import msgspec
from sqlalchemy import ScalarSelect, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.catalog.adapters.hosting import next_hour
from tokenyard.catalog.aliases.store import delete_aliases_of
from tokenyard.catalog.changes import WORKER, models_changed
from tokenyard.catalog.tables import ENDED, AdapterRow, AdapterState, AliasRow, RevisionRow
from tokenyard.core.adapters import AdapterRef, parse_fine_tuned
from tokenyard.core.clock import Clock
from tokenyard.core.errors import Conflict, NotFound
from tokenyard.core.ids import AdapterId, ApiKeyId, JobId, OrganizationId, ProjectId
from tokenyard.storage.database import AuditLog, Database, Fence, organization_lock
from tokenyard.storage.quota import StorageQuota
from tokenyard.storage.transactional_outbox import OutboxMessage


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
    """All that one organization may call besides the base models, at one revision.

    Among the aliases are the names of checkpoints that are models themselves.
    """

    revision: int
    adapters: Mapping[str, Adapter]
    aliases: Mapping[str, str]

    @property
    def fine_tunes(self) -> dict[str, Adapter]:
        """The adapters by every name of theirs: aliases that the organization chose are none."""
        checkpoints = {name: model for name, model in self.aliases.items() if parse_fine_tuned(name) is not None}
        return {**self.adapters, **{name: self.adapters[model] for name, model in checkpoints.items()}}


class CatalogStore:
    """Every method sees one organization's rows; another's raise `NotFound`, as if they did not exist.

    What changes the models that an organization may call returns what is to be carried.
    """

    def __init__(self, database: Database, clock: Clock, audit: AuditLog, quota: StorageQuota) -> None:
        self._database = database
        self._clock = clock
        self._audit = audit
        self._quota = quota

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
            live = adapters.all()
            aliases = await session.scalars(select(AliasRow).where(AliasRow.organization == organization))
            return OwnModels(
                revision or 0,
                {row.name: Adapter.of(row) for row in live},
                {row.alias: row.model for row in aliases} | _last_checkpoints(live),
            )

    async def add_adapter(
        self,
        organization: OrganizationId,
        ref: AdapterRef,
        *,
        project: ProjectId,
        job: JobId,
        base: str,
        size: int,
        actor: ApiKeyId,
        checkpoint_of: AdapterId | None = None,
        last_step: int | None = None,
        fence: Fence | None = None,
    ) -> None:
        """Add an adapter that is to be checked; adding the very same one again changes nothing.

        `size`: its bytes. Where the organization has no room for them, `QuotaExceeded` is raised. One of a checkpoint
        whose model was deleted raises `Conflict`.
        """
        async with self._database.transaction() as session:
            await organization_lock(session, organization)
            if fence is not None:
                await fence(session)
            row = await session.get(AdapterRow, ref.id)
            if row is None:
                await _check_model(session, checkpoint_of)
                await self._quota.take(session, organization, size, param="training_file")
                row = AdapterRow(
                    id=ref.id,
                    organization=organization,
                    project=project,
                    job=job,
                    base=base,
                    name=ref.name,
                    path=ref.path,
                    digest=ref.digest,
                    key=actor,
                    bytes=size,
                    state=AdapterState.CHECKING,
                    created_ms=self._clock.now_ms(),
                    checkpoint_of=checkpoint_of,
                    last_step=last_step,
                )
                session.add(row)
                note_state(
                    session, row, actor, None, audit=self._audit, at_ms=row.created_ms, job=job, digest=ref.digest
                )
            elif row.organization != organization or Adapter.of(row).ref != ref:
                raise Conflict(f"Another adapter has the id {ref.id}.")

    async def promote(
        self, organization: OrganizationId, adapter: AdapterId, fence: Fence | None = None
    ) -> list[OutboxMessage]:
        """Make a checked adapter callable; one that is live already stays so."""
        async with self._database.transaction() as session:
            if fence is not None:
                await fence(session)
            row = await own_adapter(session, organization, adapter, to_change=True)
            if row.state in ENDED:
                raise Conflict(f"The model `{row.name}` is retired.")
            if row.state == AdapterState.LIVE:
                return []
            row.state = AdapterState.LIVE
            row.live_ms = self._clock.now_ms()
            row.next_hour_ms = next_hour(row.live_ms)
            note_state(session, row, WORKER, AdapterState.CHECKING, audit=self._audit, at_ms=row.live_ms)
            return [await models_changed(session, organization, row.live_ms)]

    async def retire(
        self,
        organization: OrganizationId,
        adapter: AdapterId,
        *,
        actor: ApiKeyId,
        reason: str,
        with_checkpoints: bool = False,
    ) -> list[OutboxMessage]:
        """Give an adapter no new request any more, with the aliases that name it; doing it again changes nothing."""
        now_ms = self._clock.now_ms()
        async with self._database.transaction() as session:
            rows = [await own_adapter(session, organization, adapter, to_change=True)]
            if with_checkpoints:
                of_it = select(AdapterRow).where(AdapterRow.checkpoint_of == adapter).order_by(AdapterRow.id)
                rows += await session.scalars(of_it.with_for_update())
            ending = [row for row in rows if row.state not in ENDED]
            for row in ending:
                before = AdapterState(row.state)
                row.state, row.draining_ms, row.reason = AdapterState.DRAINING, now_ms, reason[:1000]
                note_state(session, row, actor, before, audit=self._audit, at_ms=now_ms, reason=row.reason)
                await delete_aliases_of(session, row, actor=actor, audit=self._audit, at=now_ms // 1000)
            return [await models_changed(session, organization, now_ms)] if ending else []

    async def adapter(self, organization: OrganizationId, adapter: AdapterId) -> Adapter:
        """Return one adapter in whatever state."""
        async with self._database.reading() as session:
            return Adapter.of(await own_adapter(session, organization, adapter))

    async def path(self, organization: OrganizationId, adapter: AdapterId) -> str | None:
        """Return the folder of a live adapter's files in the blob store; None where it is not live."""
        live = AdapterRow.id == adapter, AdapterRow.state == AdapterState.LIVE
        query = select(AdapterRow.path).where(AdapterRow.organization == organization, *live)
        async with self._database.reading() as session:
            return await session.scalar(query)


def _last_checkpoints(live: Iterable[AdapterRow]) -> dict[str, str]:
    """Return the names of the checkpoints that are models themselves, and of those models."""
    found = {}
    for row in live:
        name = parse_fine_tuned(row.name)
        if name is not None and row.last_step is not None:
            found[str(name.at_step(row.last_step))] = row.name
    return found


async def _check_model(session: AsyncSession, checkpoint_of: AdapterId | None) -> None:
    """Raise `Conflict` where the model of a checkpoint was deleted; it stays as it is until this transaction ends."""
    model = None if checkpoint_of is None else await session.get(AdapterRow, checkpoint_of, with_for_update=True)
    # One that never went live has ended because its job has, whose checkpoints stay.
    if model is not None and model.live_ms is not None and model.state in ENDED:
        raise Conflict(f"The model `{model.name}` is retired.")


def note_state(
    session: AsyncSession,
    row: AdapterRow,
    actor: ApiKeyId,
    before: AdapterState | None,
    *,
    audit: AuditLog,
    at_ms: int,
    **details: object,
) -> None:
    """Write to the audit log which state an adapter has now, and which it had."""
    audit(
        session,
        OrganizationId(row.organization),
        actor,
        f"adapter.{row.state}",
        row.id,
        at=at_ms // 1000,
        details={"model": row.name, "state": str(row.state), **details},
        before={} if before is None else {"state": str(before)},
    )


def adapter_bytes(organization: OrganizationId) -> ScalarSelect[int]:
    """Return a query of how much an organization's adapters take that are live or about to be: `StoredBytes`."""
    standing = AdapterRow.state.in_((AdapterState.CHECKING, AdapterState.LIVE))
    sizes = select(func.coalesce(func.sum(AdapterRow.bytes), 0)).where(
        AdapterRow.organization == organization, standing
    )
    return sizes.scalar_subquery()


async def own_adapter(
    session: AsyncSession, organization: OrganizationId, adapter: AdapterId, *, to_change: bool = False
) -> AdapterRow:
    """Return the row, or raise `NotFound`; one that is to be changed stays as it is until this transaction ends."""
    query = select(AdapterRow).where(AdapterRow.organization == organization, AdapterRow.id == adapter)
    row = await session.scalar(query.with_for_update() if to_change else query)
    if row is None:
        raise NotFound(f"No such adapter: `{adapter}`.")
    return row
