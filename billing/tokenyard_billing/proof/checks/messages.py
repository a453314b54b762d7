"""What is on its way, or stopped: messages of the outbox, dead letters, alarms."""

from collections.abc import AsyncIterator

from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.storage.database import Database
from tokenyard.storage.tables import OutboxRow
from tokenyard.storage.transactional_outbox import not_carried
from tokenyard_billing.proof.checks.comparison import EXAMPLES, broken, noted
from tokenyard_billing.proof.views import Difference
from tokenyard_billing.tables import Alarm, DeadLetter
from tokenyard_billing.wallets.changes import TOPIC, BudgetChanges, read_changes

WAITING_MS = 60_000
PAGE = 200


async def check_messages(session: AsyncSession, run: str, now_ms: int) -> list[Difference]:
    """Name messages that failed or wait too long; and, as what may be, dead letters and alarms, newest first."""
    late = or_(OutboxRow.failures > 0, OutboxRow.due_at_ms < now_ms - WAITING_MS)
    waiting = select(OutboxRow).where(not_carried(run), late).order_by(OutboxRow.id).limit(EXAMPLES)
    found = [
        broken("message_not_carried", f"{row.topic}/{row.id}", f"failed {row.failures} times")
        for row in await session.scalars(waiting)
    ]
    dead = select(DeadLetter).order_by(DeadLetter.at_ms.desc()).limit(EXAMPLES)
    found += [noted("dead_letter", row.id, row.reason) for row in await session.scalars(dead)]
    alarms = select(Alarm).order_by(Alarm.at_ms.desc()).limit(EXAMPLES)
    return found + [noted("alarm", row.id, row.message) for row in await session.scalars(alarms)]


async def changes_on_their_way(database: Database, run: str) -> AsyncIterator[BudgetChanges]:
    """Yield what commits have changed of budgets and the `run` of Redis may not know yet."""
    last = 0
    while True:
        query = select(OutboxRow.id, OutboxRow.payload).where(
            not_carried(run), OutboxRow.topic == TOPIC, OutboxRow.id > last
        )
        async with database.reading() as session:
            rows = (await session.execute(query.order_by(OutboxRow.id).limit(PAGE))).all()
        for _, payload in rows:
            for change in read_changes(payload):
                yield change
        if len(rows) < PAGE:
            return
        last = rows[-1][0]
