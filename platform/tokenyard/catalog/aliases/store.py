"""Aliases of one organization: what they stand for, what they stood for, and since when."""

from collections.abc import Sequence

from sqlalchemy import Select, delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.catalog.changes import models_changed
from tokenyard.catalog.tables import AdapterRow, AdapterState, AliasRevisionRow, AliasRow
from tokenyard.catalog.views import AliasRevisionView, AliasView
from tokenyard.core.clock import Clock
from tokenyard.core.errors import Conflict, NotFound
from tokenyard.core.ids import AdapterId, ApiKeyId, OrganizationId
from tokenyard.storage.database import AuditLog, Database, organization_lock
from tokenyard.storage.transactional_outbox import OutboxMessage

MAX_ALIASES = 1000
KEPT_REVISIONS = 100
"""Of each alias, the newest. What came before stands in the audit log only."""


class AliasStore:
    """Every method sees one organization's rows; another's raise `NotFound`, as if they did not exist.

    What changes an alias returns what is to be carried. An alias that goes takes its revisions with it.
    """

    def __init__(self, database: Database, clock: Clock, audit: AuditLog) -> None:
        self._database = database
        self._clock = clock
        self._audit = audit

    async def point(
        self,
        organization: OrganizationId,
        alias: str,
        *,
        model: str,
        adapter: AdapterId | None,
        actor: ApiKeyId,
        restores: int | None = None,
        must_exist: bool = False,
    ) -> tuple[AliasView, list[OutboxMessage]]:
        """Let `alias` stand for a model from now on. Where it does so already, nothing changes.

        Raises:
            NotFound: the model is not live, or there is no such alias and there must be one.
            Conflict: the organization has too many.
        """
        async with self._database.transaction() as session:
            await organization_lock(session, organization)
            await _check_live(session, organization, model, adapter)
            row = await session.get(AliasRow, (organization, alias))
            if row is not None and row.model == model:
                return AliasView.of(row), []
            before = {} if row is None else {"model": row.model, "revision": row.revision}
            if row is None and must_exist:
                raise no_such_alias(alias)
            if row is None:
                row = await self._new(session, organization, alias)
            row.model, row.adapter, row.revision, row.changed_ms = (
                model,
                adapter,
                row.revision + 1,
                self._clock.now_ms(),
            )
            await _add_revision(session, row, restores=restores, actor=actor)
            details: dict[str, object] = {"model": model, "revision": row.revision}
            self._audit(
                session,
                organization,
                actor,
                "model_alias.updated" if before else "model_alias.created",
                alias,
                at=row.changed_ms // 1000,
                details=details if restores is None else {**details, "restores": restores},
                before=before,
            )
            return AliasView.of(row), [await models_changed(session, organization, row.changed_ms)]

    async def earlier(self, organization: OrganizationId, alias: str, revision: int | None) -> AliasRevisionView:
        """Return an earlier revision of an alias; None is for what it stood for before what it stands for now.

        Going back again and again leads to the beginning, not back and forth: what was restored counts as itself.

        Raises:
            NotFound: there is no such alias, or no such revision any more.
        """
        async with self._database.reading() as session:
            row = await _alias(session, organization, alias)
            if revision is not None:
                found = await session.get(AliasRevisionRow, (organization, alias, revision))
            else:
                now = await session.get(AliasRevisionRow, (organization, alias, row.revision))
                assert now is not None, "the revision in force is never forgotten"
                before = _of(organization, alias).where(AliasRevisionRow.number < (now.restores or now.number))
                found = await session.scalar(before.limit(1))
            if found is None:
                raise NotFound(f"The alias `{alias}` has no such earlier revision.", param="revision")
            return AliasRevisionView.of(found)

    async def get(self, organization: OrganizationId, alias: str) -> AliasView:
        async with self._database.reading() as session:
            return AliasView.of(await _alias(session, organization, alias))

    async def all(self, organization: OrganizationId) -> Sequence[AliasView]:
        """Return all aliases, by name."""
        async with self._database.reading() as session:
            rows = await session.scalars(
                select(AliasRow).where(AliasRow.organization == organization).order_by(AliasRow.alias)
            )
            return [AliasView.of(row) for row in rows]

    async def revisions(self, organization: OrganizationId, alias: str) -> Sequence[AliasRevisionView]:
        """Return what is kept of an alias' history, newest first."""
        async with self._database.reading() as session:
            await _alias(session, organization, alias)
            return [AliasRevisionView.of(row) for row in await session.scalars(_of(organization, alias))]

    async def delete(self, organization: OrganizationId, alias: str, *, actor: ApiKeyId) -> list[OutboxMessage]:
        now_ms = self._clock.now_ms()
        async with self._database.transaction() as session:
            await organization_lock(session, organization)
            row = await _alias(session, organization, alias)
            await _delete(session, row, actor=actor, audit=self._audit, at=now_ms // 1000)
            return [await models_changed(session, organization, now_ms)]

    async def _new(self, session: AsyncSession, organization: OrganizationId, alias: str) -> AliasRow:
        count = select(func.count()).where(AliasRow.organization == organization)
        if (await session.scalar(count) or 0) >= MAX_ALIASES:
            raise Conflict(f"An organization can have {MAX_ALIASES} aliases.")
        row = AliasRow(organization=organization, alias=alias, created_ms=self._clock.now_ms(), revision=0)
        session.add(row)
        return row


async def delete_aliases_of(
    session: AsyncSession, adapter: AdapterRow, *, actor: ApiKeyId, audit: AuditLog, at: int
) -> None:
    """Delete the aliases that stand for an adapter which the caller has locked, in the caller's transaction."""
    query = select(AliasRow).where(AliasRow.organization == adapter.organization, AliasRow.adapter == adapter.id)
    for row in (await session.scalars(query.with_for_update())).all():
        await _delete(session, row, actor=actor, audit=audit, at=at)


def no_such_alias(alias: str) -> NotFound:
    return NotFound(f"No such alias: `{alias[:64]}`.")


def _of(organization: OrganizationId, alias: str) -> Select[AliasRevisionRow]:
    owned = AliasRevisionRow.organization == organization, AliasRevisionRow.alias == alias
    return select(AliasRevisionRow).where(*owned).order_by(AliasRevisionRow.number.desc())


async def _alias(session: AsyncSession, organization: OrganizationId, alias: str) -> AliasRow:
    row = await session.get(AliasRow, (organization, alias))
    if row is None:
        raise no_such_alias(alias)
    return row


async def _check_live(
    session: AsyncSession, organization: OrganizationId, model: str, adapter: AdapterId | None
) -> None:
    """Hold an adapter as it is until the transaction ends, so that no alias outlives what it stands for."""
    if adapter is None:
        return
    query = select(AdapterRow.state).where(AdapterRow.organization == organization, AdapterRow.id == adapter)
    if await session.scalar(query.with_for_update()) != AdapterState.LIVE:
        raise NotFound(f"The model `{model}` is not live.", param="model")


async def _add_revision(session: AsyncSession, row: AliasRow, *, restores: int | None, actor: ApiKeyId) -> None:
    session.add(
        AliasRevisionRow(
            organization=row.organization,
            alias=row.alias,
            number=row.revision,
            model=row.model,
            adapter=row.adapter,
            restores=restores,
            key=actor,
            at_ms=row.changed_ms,
        )
    )
    await session.execute(
        delete(AliasRevisionRow).where(
            AliasRevisionRow.organization == row.organization,
            AliasRevisionRow.alias == row.alias,
            AliasRevisionRow.number <= row.revision - KEPT_REVISIONS,
        )
    )


async def _delete(session: AsyncSession, row: AliasRow, *, actor: ApiKeyId, audit: AuditLog, at: int) -> None:
    organization = OrganizationId(row.organization)
    before: dict[str, object] = {"model": row.model, "revision": row.revision}
    audit(session, organization, actor, "model_alias.deleted", row.alias, at=at, details={}, before=before)
    await session.execute(
        delete(AliasRevisionRow).where(
            AliasRevisionRow.organization == organization, AliasRevisionRow.alias == row.alias
        )
    )
    await session.delete(row)
