"""Payments through a provider: what succeeded stands in the books once, and cash is what was paid."""

from sqlalchemy import Select, case, literal, select, union_all
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from tokenyard_billing.invoice_tables import Settlement
from tokenyard_billing.invoicing.closing import PAID
from tokenyard_billing.ledger.journal import AccountName
from tokenyard_billing.payments.posting import SUCCEEDED
from tokenyard_billing.payments.tables import Payment
from tokenyard_billing.proof.checks.comparison import Side, compare
from tokenyard_billing.proof.views import Difference
from tokenyard_billing.tables import CreditGrant, Entry


async def check_payments(session: AsyncSession) -> list[Difference]:
    """A payment = what it settled + what it credited; nothing else brings cash but what operators note themselves."""
    said = union_all(*(_parts(column) for column in (Payment.settled, Payment.credited)))
    settled = select(Payment.id, literal("settled"), Settlement.amount).join(
        Settlement, (Settlement.invoice == Payment.invoice) & (Settlement.idempotency_key == Payment.id)
    )
    credited = select(Payment.id, literal("credited"), CreditGrant.amount).join(
        CreditGrant,
        (CreditGrant.organization == Payment.organization) & (CreditGrant.idempotency_key == Payment.id),
    )
    booked = union_all(settled, credited)
    sides = Side("payment", said), Side("books", booked)
    found = await compare(session, "payment_not_booked", *sides, keys=2)
    whole = select(Payment.id, case((Payment.state == SUCCEEDED, Payment.amount), else_=0))
    parts = select(Payment.id, Payment.settled + Payment.credited)
    found += await compare(session, "payment_not_whole", Side("payment", whole), Side("parts", parts))
    paid = union_all(
        select(Settlement.organization, Settlement.amount).where(Settlement.state == PAID),
        select(Payment.organization, Payment.credited),
    )
    cash = select(Entry.organization, -Entry.amount).where(Entry.account == AccountName.CASH)
    return found + await compare(session, "cash_not_payments", Side("payments", paid), Side("journal", cash))


def _parts(column: InstrumentedAttribute[int]) -> Select[str, str, int]:
    return select(Payment.id, literal(column.key).label("part"), column.label("amount"))
