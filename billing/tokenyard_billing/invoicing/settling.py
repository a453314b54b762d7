"""Ends open invoices: paid, void or uncollectible. Each is posted, and noted in the audit log."""

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.clock import Clock
from tokenyard.core.errors import Conflict, NotFound
from tokenyard.core.ids import ApiKeyId, OrganizationId
from tokenyard.core.money import NanoDollars
from tokenyard.storage.database import AuditLog, Database, EventLog
from tokenyard.storage.transactional_outbox import OutboxMessage, TransactionalOutbox
from tokenyard_billing.dunning.blocks import end_dunning
from tokenyard_billing.invoice_tables import CreditNote, Invoice, Settlement
from tokenyard_billing.invoicing.closing import INVOICE_PAID, PAID
from tokenyard_billing.invoicing.store import OPEN
from tokenyard_billing.ledger import journal
from tokenyard_billing.ledger.journal import AccountName
from tokenyard_billing.ports import Blocking

VOID = "void"
UNCOLLECTIBLE = "uncollectible"
ACCOUNTS = {PAID: AccountName.CASH, VOID: AccountName.ADJUSTMENTS, UNCOLLECTIBLE: AccountName.WRITTEN_OFF}
"""Where what was due goes; but the tax of a void invoice goes back."""
_EVENTS = {PAID: INVOICE_PAID, VOID: "invoice.voided", UNCOLLECTIBLE: "invoice.marked_uncollectible"}


class InvoiceSettlements:
    def __init__(
        self,
        *,
        database: Database,
        audit: AuditLog,
        events: EventLog,
        clock: Clock,
        blocking: Blocking,
        outbox: TransactionalOutbox,
    ) -> None:
        self._database = database
        self._audit = audit
        self._events = events
        self._clock = clock
        self._blocking = blocking
        self._outbox = outbox

    async def pay(self, invoice: str, *, reference: str, idempotency_key: str, actor: ApiKeyId) -> None:
        """Note that all that is still due was paid. The same idempotency key again changes nothing.

        Raises:
            NotFound: no such invoice.
            Conflict: it is not open.
        """
        await self._settle(invoice, PAID, reference, actor, idempotency_key)

    async def void(self, invoice: str, *, reason: str, actor: ApiKeyId) -> None:
        """Claim nothing by an invoice that should not have been; what was used is not billed anew. Raises as `pay`."""
        await self._settle(invoice, VOID, reason, actor, "")

    async def write_off(self, invoice: str, *, reason: str, actor: ApiKeyId) -> None:
        """Give up what is due: nobody will pay it. Raises as `pay`."""
        await self._settle(invoice, UNCOLLECTIBLE, reason, actor, "")

    async def _settle(self, identity: str, state: str, note: str, actor: ApiKeyId, key: str) -> None:
        now_ms = self._clock.now_ms()
        async with self._database.transaction() as session:
            invoice = await session.scalar(select(Invoice).where(Invoice.id == identity).with_for_update())
            if invoice is None:
                raise NotFound(f"No such invoice: {identity}")
            if await _is_done(session, identity, state, key):
                return
            if invoice.state != OPEN:
                raise Conflict(f"The invoice {identity} is {invoice.state}; only an open one can become {state}.")
            await settle(
                session,
                invoice,
                state,
                note,
                actor=actor,
                key=key,
                audit=self._audit,
                events=self._events,
                now_ms=now_ms,
            )
            messages = await unblock(session, invoice, self._blocking, actor=actor, now_ms=now_ms)
        await self._outbox.try_to_carry(messages)


async def still_due(session: AsyncSession, invoice: Invoice) -> NanoDollars:
    """Return what an open invoice still claims."""
    lowered, _ = await _lowered(session, invoice.id)
    return NanoDollars(invoice.amount_due - lowered)


async def settle(
    session: AsyncSession,
    invoice: Invoice,
    state: str,
    note: str,
    *,
    actor: ApiKeyId,
    key: str,
    audit: AuditLog,
    events: EventLog,
    now_ms: int,
) -> None:
    """End an open invoice that the caller has locked: all that is still due goes where `state` says."""
    organization = OrganizationId(invoice.organization)
    lowered, tax_lowered = await _lowered(session, invoice.id)
    due = NanoDollars(invoice.amount_due - lowered)
    # A claim that should not have been owes no tax; one that is never paid may still owe it.
    untaxed = NanoDollars(invoice.tax - tax_lowered if state == VOID else 0)
    posting = journal.invoice_settled(
        organization, due, ACCOUNTS[state], reference=invoice.id, reason=note, actor=actor, untaxed=untaxed
    )
    [transaction] = await journal.post(session, [posting], now_ms)
    session.add(
        Settlement(
            invoice=invoice.id,
            organization=organization,
            state=state,
            amount=due,
            note=note,
            actor=actor,
            idempotency_key=key,
            transaction=transaction,
            settled_at_ms=now_ms,
        )
    )
    invoice.state = state
    await events(session, organization, _EVENTS[state], {"id": invoice.id}, at_ms=now_ms)
    audit(
        *(session, organization, actor, f"invoice.{state}", invoice.id),
        at=now_ms // 1000,
        details={"state": state, "amount": int(due), "note": note},
        before={"state": OPEN},
    )


async def unblock(
    session: AsyncSession, invoice: Invoice, blocking: Blocking, *, actor: ApiKeyId, now_ms: int
) -> Sequence[OutboxMessage]:
    """Let a settled invoice block its organization no more, unless it was given up: then the money is still missing.

    Return what is to be carried after the commit.
    """
    if invoice.state == UNCOLLECTIBLE:
        return []
    organization = OrganizationId(invoice.organization)
    return await end_dunning(session, organization, invoice.id, blocking, actor=actor, at_ms=now_ms)


async def _is_done(session: AsyncSession, invoice: str, state: str, key: str) -> bool:
    """Tell whether this very payment was noted before."""
    found = await session.get(Settlement, invoice)
    return bool(key) and found is not None and (found.state, found.idempotency_key) == (state, key)


async def _lowered(session: AsyncSession, invoice: str) -> tuple[int, int]:
    """Return what credit notes took from what an open invoice claims, and the tax in it."""
    sums = func.coalesce(func.sum(CreditNote.due_lowered), 0), func.coalesce(func.sum(CreditNote.tax), 0)
    due, tax = (await session.execute(select(*sums).where(CreditNote.invoice == invoice))).one()
    return int(due), int(tax)
