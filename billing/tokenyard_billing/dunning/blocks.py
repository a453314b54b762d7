"""Blocks an organization whose invoices have come to the end of dunning, and lets it go on."""

from collections.abc import Sequence

from sqlalchemy import exists, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.ids import ApiKeyId, OrganizationId
from tokenyard.storage.database import advisory_lock
from tokenyard.storage.transactional_outbox import OutboxMessage
from tokenyard_billing.dunning.tables import Dunning, DunningException
from tokenyard_billing.ports import Blocking

OVERDUE = "an invoice is overdue"


async def lock_dunning(session: AsyncSession, organization: OrganizationId) -> None:
    """Let what one transaction pays, and another one blocks for, see each other."""
    await advisory_lock(session, f"dunning {organization}")


async def review_block(
    session: AsyncSession, organization: OrganizationId, blocking: Blocking, *, actor: ApiKeyId, at_ms: int
) -> Sequence[OutboxMessage]:
    """Block the organization, or let it go on, as its invoices and an operator's exception say now.

    Return what is to be carried after the commit.
    """
    await lock_dunning(session, organization)
    blocks = exists().where(Dunning.organization == organization, Dunning.blocks)
    exempt = exists().where(DunningException.organization == organization, DunningException.exempt)
    reason = OVERDUE if await session.scalar(select(blocks & ~exempt)) else ""
    return await blocking.set_reason(session, organization, reason, actor=actor, at_ms=at_ms)


async def end_dunning(
    session: AsyncSession,
    organization: OrganizationId,
    invoice: str,
    blocking: Blocking,
    *,
    actor: ApiKeyId,
    at_ms: int,
) -> Sequence[OutboxMessage]:
    """Let an invoice block nobody any more: it was paid, or nothing is claimed by it. Returns as `review_block`."""
    blocked = update(Dunning).where(Dunning.invoice == invoice, Dunning.blocks)
    ended = await session.scalars(blocked.values(blocks=False).returning(Dunning.invoice))
    if ended.first() is None:
        return []
    return await review_block(session, organization, blocking, actor=actor, at_ms=at_ms)
