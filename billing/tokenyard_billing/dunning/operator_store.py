"""Dunning across organizations, and operators' exceptions from it."""

from collections.abc import Sequence

import msgspec
from sqlalchemy import select

from tokenyard.core.clock import Clock
from tokenyard.core.errors import InvalidRequest
from tokenyard.core.ids import ApiKeyId, OrganizationId
from tokenyard.storage.database import AuditLog, Database
from tokenyard.storage.paging import part_of_list
from tokenyard.storage.transactional_outbox import TransactionalOutbox
from tokenyard_billing.dunning.blocks import lock_dunning, review_block
from tokenyard_billing.dunning.tables import Dunning, DunningException
from tokenyard_billing.ports import Blocking

_STATED = ("exempt", "paused_until_ms", "reason")


class StatedException(msgspec.Struct, frozen=True):
    """`changed_at_ms` is None where nothing was stated."""

    organization: OrganizationId
    exempt: bool = False
    paused_until_ms: int = 0
    reason: str = ""
    actor: str = ""
    changed_at_ms: int | None = None


class DunningOperatorStore:
    def __init__(
        self, database: Database, audit: AuditLog, clock: Clock, blocking: Blocking, outbox: TransactionalOutbox
    ) -> None:
        self._database = database
        self._audit = audit
        self._clock = clock
        self._blocking = blocking
        self._outbox = outbox

    async def dunned(self, *, organization: OrganizationId | None, after: str | None, limit: int) -> Sequence[Dunning]:
        """Return overdue invoices, the last step first; an unknown `after` raises `InvalidRequest`."""
        query = select(Dunning)
        if organization is not None:
            query = query.where(Dunning.organization == organization)
        async with self._database.reading() as session:
            last = None if after is None else await session.get(Dunning, after)
            if last is None and after is not None:
                raise InvalidRequest(f"No such dunned invoice: {after}", param="after")
            part = part_of_list(query, Dunning.stepped_at_ms, Dunning.invoice, after=last, limit=limit)
            return (await session.scalars(part)).all()

    async def exception(self, organization: OrganizationId) -> StatedException:
        async with self._database.reading() as session:
            return _stated(organization, await session.get(DunningException, organization))

    async def state(
        self, organization: OrganizationId, *, exempt: bool, paused_until_ms: int, reason: str, actor: ApiKeyId
    ) -> StatedException:
        """State it whole, in place of what was stated before. An exempt organization is blocked no more.

        A pause takes no further step, and undoes none.
        """
        now_ms = self._clock.now_ms()
        async with self._database.transaction() as session:
            await lock_dunning(session, organization)
            row = await session.get(DunningException, organization)
            before = _stated(organization, row)
            if row is None:
                row = DunningException(organization=organization)
                session.add(row)
            row.exempt, row.paused_until_ms, row.reason = exempt, paused_until_ms, reason
            row.actor, row.changed_at_ms = actor, now_ms
            await session.flush()
            after = _stated(organization, row)
            self._audit(
                *(session, organization, actor, "organization.dunning_changed", organization),
                at=now_ms // 1000,
                details={name: getattr(after, name) for name in _STATED},
                before={name: getattr(before, name) for name in _STATED},
            )
            messages = await review_block(session, organization, self._blocking, actor=actor, at_ms=now_ms)
        await self._outbox.try_to_carry(messages)
        return after


def _stated(organization: OrganizationId, row: DunningException | None) -> StatedException:
    if row is None:
        return StatedException(organization)
    return StatedException(
        organization, row.exempt, row.paused_until_ms, row.reason, row.actor, changed_at_ms=row.changed_at_ms
    )
