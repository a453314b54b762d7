"""Blocks organizations from all that costs money, and lets them go on."""

from collections.abc import Sequence

from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.ids import ApiKeyId, OrganizationId
from tokenyard.storage.transactional_outbox import OutboxMessage
from tokenyard.tenancy.store import AuditedChange, record, revise_for
from tokenyard.tenancy.tables import OrganizationRow


class OrganizationBlocks:
    """Works in the transaction of what blocks: both are there, or neither."""

    async def set_reason(
        self, session: AsyncSession, organization: OrganizationId, reason: str, *, actor: ApiKeyId, at_ms: int
    ) -> Sequence[OutboxMessage]:
        """Block an organization for a reason that it reads, or let it go on where that is empty.

        Return what is to be carried after the commit: nothing where it stood so before, or there is no such one.
        """
        row = await session.scalar(select(OrganizationRow).where(OrganizationRow.id == organization).with_for_update())
        if row is None or row.blocked_reason == reason:
            return []
        change = AuditedChange(row)
        change.set("blocked_reason", reason)
        messages = await revise_for(session, organization, change, at_ms)
        action = "organization.blocked" if reason else "organization.unblocked"
        record(session, organization, actor, action, organization, at=at_ms // 1000, change=change)
        return messages

    async def is_closed(self, session: AsyncSession, organization: OrganizationId) -> bool:
        """Tell whether it may use nothing now: it is blocked or archived."""
        closed = or_(OrganizationRow.blocked_reason != "", OrganizationRow.archived_at.is_not(None))
        found = await session.scalar(select(OrganizationRow.id).where(OrganizationRow.id == organization, closed))
        return found is not None
