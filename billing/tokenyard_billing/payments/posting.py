"""Notes how a payment ended, in the books too: what was paid ends its invoice or becomes credit, and never vanishes."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import NanoDollars
from tokenyard.storage.database import AuditLog, EventLog
from tokenyard.storage.transactional_outbox import OutboxMessage
from tokenyard_billing.dunning.blocks import end_dunning
from tokenyard_billing.invoice_tables import Invoice
from tokenyard_billing.invoicing.closing import CLOSER, PAID
from tokenyard_billing.invoicing.settling import UNCOLLECTIBLE, settle, still_due
from tokenyard_billing.invoicing.store import OPEN
from tokenyard_billing.payments.tables import Payment
from tokenyard_billing.ports import Blocking
from tokenyard_billing.wallets.store import credit_payment

CREATED, PROCESSING, SUCCEEDED, FAILED, CANCELLED = "created", "processing", "succeeded", "failed", "cancelled"
LIVE = (CREATED, PROCESSING)


class PaymentPosting:
    def __init__(self, audit: AuditLog, events: EventLog, blocking: Blocking) -> None:
        self._audit = audit
        self._events = events
        self._blocking = blocking

    async def succeed(self, session: AsyncSession, payment: Payment, now_ms: int) -> Sequence[OutboxMessage]:
        """Post the money of a payment that the caller has locked; return what is to be carried after the commit.

        What its invoice does not claim any more is credit: it may have been paid, voided or lowered meanwhile.
        """
        organization = OrganizationId(payment.organization)
        messages = [] if payment.invoice is None else [*await self._settle(session, payment, payment.invoice, now_ms)]
        payment.credited = payment.amount - payment.settled
        if payment.credited:
            messages += await credit_payment(
                session,
                organization,
                NanoDollars(payment.credited),
                payment=payment.id,
                reason=_why(payment),
                actor=CLOSER,
                events=self._events,
                at_ms=now_ms,
            )
        self._end(session, payment, SUCCEEDED, now_ms)
        return messages

    def end(
        self, session: AsyncSession, payment: Payment, state: str, now_ms: int, *, code: str = "", message: str = ""
    ) -> None:
        """Note that a payment took no money, and never will."""
        payment.failure_code, payment.failure_message = code[:64], message
        self._end(session, payment, state, now_ms)

    async def _settle(
        self, session: AsyncSession, payment: Payment, identity: str, now_ms: int
    ) -> Sequence[OutboxMessage]:
        invoice = await session.scalar(select(Invoice).where(Invoice.id == identity).with_for_update())
        if invoice is None or invoice.state not in {OPEN, UNCOLLECTIBLE}:
            return []
        due = await still_due(session, invoice)
        if not 0 < due <= payment.amount:
            return []
        if invoice.state == OPEN:
            note = f"{payment.provider} {payment.charge}"
            await settle(
                *(session, invoice, PAID, note),
                actor=CLOSER,
                key=payment.id,
                audit=self._audit,
                events=self._events,
                now_ms=now_ms,
            )
            payment.settled = due
        # Also where it was given up: the money is missing no more.
        organization = OrganizationId(payment.organization)
        return await end_dunning(session, organization, invoice.id, self._blocking, actor=CLOSER, at_ms=now_ms)

    def _end(self, session: AsyncSession, payment: Payment, state: str, now_ms: int) -> None:
        before, payment.state, payment.finished_at_ms = payment.state, state, now_ms
        details: dict[str, object] = {
            "state": state,
            "amount": payment.amount,
            "invoice": payment.invoice,
            "settled": payment.settled,
            "credited": payment.credited,
            "failure_code": payment.failure_code,
        }
        self._audit(
            *(session, OrganizationId(payment.organization), CLOSER, f"payment.{state}", payment.id),
            at=now_ms // 1000,
            details=details,
            before={"state": before},
        )


def _why(payment: Payment) -> str:
    if payment.invoice is None:
        return "Credit that was bought"
    return f"Paid for {payment.invoice}, which did not claim it any more"
