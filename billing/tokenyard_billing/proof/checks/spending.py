"""Spending: what monthly limits count is what was charged and what is reserved."""

from sqlalchemy import ColumnElement, CompoundSelect, func, select, union_all
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard_billing.proof.checks.comparison import Side, compare, month_of
from tokenyard_billing.proof.views import Difference
from tokenyard_billing.tables import Charge, Reservation, Spending
from tokenyard_billing.wallets.reservations import ReservationState


async def check_spending(session: AsyncSession) -> list[Difference]:
    """Compare each scope's months with its charges by their admission, and with open reservations by theirs."""
    scope = (Spending.organization, Spending.scope, Spending.month)
    charged = _by_scope(Charge, month_of(session, Charge.admitted_at_ms))
    reserved = _by_scope(
        Reservation, month_of(session, Reservation.reserved_at_ms), Reservation.state == ReservationState.OPEN
    )
    spent = Side("charges", charged), Side("spending", select(*scope, Spending.spent))
    aside = Side("open reservations", reserved), Side("spending", select(*scope, Spending.reserved))
    found = await compare(session, "spending_not_charges", *spent, keys=3)
    return found + await compare(session, "spending_not_reservations", *aside, keys=3)


def _by_scope(
    table: type[Charge | Reservation], month: ColumnElement[str], *wanted: ColumnElement[bool]
) -> CompoundSelect[tuple[str, str, str, int]]:
    scopes = table.organization, table.project, table.key
    keys = (*scopes, month.label("month"))
    # By key first: one look at the table is enough for the sums of all three scopes.
    by_key = select(*keys, func.sum(table.amount).label("amount")).where(*wanted).group_by(*keys).cte().c
    each = (by_key.organization, by_key.project, by_key.key)
    return union_all(
        *(
            select(by_key.organization, scope.label("scope"), by_key.month, by_key.amount).where(scope != "")
            for scope in each
        )
    )
