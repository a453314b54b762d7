"""States details anew, and keeps what stood before for the audit log."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.storage import bulk
from tokenyard_billing.parties.tables import BillingDetails, IssuerDetails


async def state(
    session: AsyncSession,
    table: type[BillingDetails | IssuerDetails],
    owner: str,
    details: dict[str, object],
    now_ms: int,
) -> dict[str, object]:
    """Replace all that `owner` had stated; return that."""
    [key] = bulk.sql_table(table).primary_key
    before = await session.scalar(select(table.details).where(key == owner).with_for_update()) or {}
    changes = {"details": details, "changed_at_ms": now_ms}
    statement = bulk.upsert(session, table).values({key.name: owner} | changes)
    await session.execute(statement.on_conflict_do_update(index_elements=[key.name], set_=changes))
    return before
