"""Payments across organizations: for operators, and for what a provider tells of by itself."""

from collections.abc import Sequence

from sqlalchemy import or_, select, update

from tokenyard.core.clock import Clock
from tokenyard.core.errors import InvalidRequest
from tokenyard.core.ids import OrganizationId
from tokenyard.storage.database import Database
from tokenyard.storage.paging import part_of_list
from tokenyard_billing.charging.batch import raise_alarms
from tokenyard_billing.charging.decision import Finding
from tokenyard_billing.payments.ports import CheckoutState, ProviderEvent
from tokenyard_billing.payments.posting import LIVE
from tokenyard_billing.payments.tables import Payment, PaymentSetup


class PaymentOperatorStore:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def payments(
        self, *, organization: OrganizationId | None, state: str | None, after: str | None, limit: int
    ) -> Sequence[Payment]:
        """Return at most `limit` payments, newest first; an unknown `after` raises `InvalidRequest`."""
        query = select(Payment)
        if organization is not None:
            query = query.where(Payment.organization == organization)
        if state is not None:
            query = query.where(Payment.state == state)
        async with self._database.reading() as session:
            last = None if after is None else await session.get(Payment, after)
            if last is None and after is not None:
                raise InvalidRequest(f"No such payment: {after}", param="after")
            part = part_of_list(query, Payment.created_at_ms, Payment.id, after=last, limit=limit)
            return (await session.scalars(part)).all()

    async def take(self, event: ProviderEvent) -> None:
        """Let a worker look at once at what an event is of, and raise its alarm. Taken again, it does no more.

        What is none of ours is passed over: others may use the same account.
        """
        of_charge = Payment.charge == event.charge if event.charge is not None else None
        of_page = Payment.checkout == event.checkout if event.checkout is not None else None
        of_either = [one for one in (of_charge, of_page) if one is not None]
        if not of_either:
            return
        async with self._database.transaction() as session:
            waiting = update(Payment).where(or_(*of_either), Payment.state.in_(LIVE))
            await session.execute(waiting.values(retry_at_ms=0))
            if event.checkout is not None:
                open_setup = (PaymentSetup.checkout == event.checkout) & (PaymentSetup.state == CheckoutState.OPEN)
                await session.execute(update(PaymentSetup).where(open_setup).values(retry_at_ms=0))
            if event.alarm:
                owner = await session.scalar(select(Payment.organization).where(or_(*of_either)))
                if owner is not None:
                    found = Finding(event.alarm, event.subject[:128], event.message)
                    await raise_alarms(session, [(OrganizationId(owner), found)], self._clock.now_ms())
