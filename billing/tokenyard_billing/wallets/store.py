"""Gives credit to organizations: by hand, and once when an organization is made."""

from collections.abc import Sequence
from typing import Protocol

import msgspec
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.budgets import wallet
from tokenyard.core.clock import Clock
from tokenyard.core.errors import Conflict, InvalidRequest
from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import NanoDollars, from_dollars
from tokenyard.storage.database import Database, EventLog
from tokenyard.storage.paging import part_of_list
from tokenyard.storage.transactional_outbox import OutboxMessage, TransactionalOutbox
from tokenyard_billing.calendars import load_calendar
from tokenyard_billing.ledger import journal
from tokenyard_billing.stale_invoices import mark_stale
from tokenyard_billing.tables import CreditGrant
from tokenyard_billing.wallets.changes import BudgetChanges, write_changes

# A hundred million dollars at a time, a thousand million in all: keep every balance within 64 bits.
MAX_GRANT = NanoDollars(10**17)
MAX_GRANTED = NanoDollars(10**18)


class WalletBalance(msgspec.Struct, frozen=True):
    """What is left (below 0 it is owed) and what is set aside for training jobs."""

    organization: OrganizationId
    available: NanoDollars
    reserved: NanoDollars


class Wallet:
    def __init__(self, database: Database, outbox: TransactionalOutbox, events: EventLog, clock: Clock) -> None:
        self._database = database
        self._outbox = outbox
        self._events = events
        self._clock = clock

    async def balance(self, organization: OrganizationId) -> WalletBalance:
        names = (journal.AccountName.WALLET, journal.AccountName.RESERVED)
        async with self._database.reading() as session:
            found = [await journal.balances(session, [organization], name) for name in names]
        return WalletBalance(organization, *(of.get(organization, (NanoDollars(0), 0))[0] for of in found))

    async def grants(
        self, organization: OrganizationId, *, after: str | None = None, limit: int
    ) -> Sequence[CreditGrant]:
        """Return at most `limit` credit grants, newest first; an unknown `after` raises `InvalidRequest`."""
        query = select(CreditGrant).where(CreditGrant.organization == organization)
        async with self._database.reading() as session:
            last = None if after is None else await session.scalar(query.where(CreditGrant.transaction == after))
            if last is None and after is not None:
                raise InvalidRequest(f"No such credit grant: {after}", param="after")
            columns = CreditGrant.granted_at_ms, CreditGrant.transaction
            return (await session.scalars(part_of_list(query, *columns, after=last, limit=limit))).all()

    async def grant(
        self, organization: OrganizationId, amount: NanoDollars, *, reason: str, actor: str, idempotency_key: str
    ) -> CreditGrant:
        """Add credit. The same idempotency key again gives the same grant and adds nothing.

        Raises:
            InvalidRequest: the amount is not above 0, or far too much, or is with all earlier ones.
            Conflict: the idempotency key was used for another amount.
        """
        if not 0 < amount <= MAX_GRANT:
            raise InvalidRequest("A credit must be above 0 and at most 100 million dollars.", param="amount_dollars")
        if not 0 < len(idempotency_key) <= 128:
            raise InvalidRequest("An idempotency key has 1 to 128 characters.", param="idempotency_key")
        wanted = CreditGrant(
            organization=organization,
            idempotency_key=idempotency_key,
            amount=amount,
            reason=reason,
            actor=actor,
            granted_at_ms=self._clock.now_ms(),
        )
        key = (organization, idempotency_key)
        messages: list[OutboxMessage] = []
        try:
            async with self._database.transaction() as session:
                found = await session.get(CreditGrant, key)
                if found is None:
                    found = wanted
                    messages = await _give(session, wanted, journal.credit_granted, self._events)
        except IntegrityError:  # the same key at the same moment: the other one won
            async with self._database.reading() as session:
                found = await session.get_one(CreditGrant, key)
        if found.amount != amount:
            raise Conflict(f"The idempotency key {idempotency_key!r} was used for another amount.")
        await self._outbox.try_to_carry(messages)
        return found


class OpeningCredit:
    """The credit that every new organization gets, once."""

    def __init__(self, wallet: Wallet, dollars: str) -> None:
        self._wallet = wallet
        self._amount = from_dollars(dollars)

    async def created(self, organization: OrganizationId) -> None:
        """Grant it; calling again for the same organization grants nothing more."""
        if self._amount:
            await self._wallet.grant(
                organization, self._amount, reason="Opening credit", actor="tokenyard", idempotency_key="opening-credit"
            )


async def credit_payment(
    session: AsyncSession,
    organization: OrganizationId,
    amount: NanoDollars,
    *,
    payment: str,
    reason: str,
    actor: str,
    events: EventLog,
    at_ms: int,
) -> list[OutboxMessage]:
    """Turn money that was paid into credit, in the transaction that notes the payment.

    Return what is to be carried after the commit.
    """
    grant = CreditGrant(
        organization=organization,
        idempotency_key=payment,
        amount=amount,
        reason=reason,
        actor=actor,
        granted_at_ms=at_ms,
    )
    return await _give(session, grant, journal.credit_paid, events)


class _Template(Protocol):
    def __call__(
        self, organization: OrganizationId, amount: NanoDollars, *, reference: str, reason: str, actor: str
    ) -> journal.Posting: ...


async def _give(
    session: AsyncSession, grant: CreditGrant, template: _Template, events: EventLog
) -> list[OutboxMessage]:
    owner = OrganizationId(grant.organization)
    reference = f"grant:{grant.idempotency_key}"[:128]
    posting = template(owner, NanoDollars(grant.amount), reference=reference, reason=grant.reason, actor=grant.actor)
    [grant.transaction] = await journal.post(session, [posting], grant.granted_at_ms)
    # Read after the posting, which has locked the balance.
    given = await journal.balances(session, [owner], journal.AccountName.GRANTED)
    if owner in given and -given[owner][0] > MAX_GRANTED:
        raise InvalidRequest("The credit of an organization is at most 1000 million dollars in all.", param="amount")
    session.add(grant)
    data = {"id": grant.transaction, "amount": grant.amount}
    await events(session, owner, "credit.granted", data, at_ms=grant.granted_at_ms)
    calendar = await load_calendar(session, owner)
    await mark_stale(session, [(owner, calendar.period_of(grant.granted_at_ms))])
    changes = BudgetChanges(owner)
    changes.add([wallet(owner)])
    return await write_changes(session, [changes], grant.granted_at_ms)
