"""Whatever is granted, charged and drafted in whatever order: bills minus credit that is left are what is owed."""

from typing import Literal

from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from support.billing.invoice_books import InvoiceBooks
from support.billing.stand import MARCH_MS, balance
from tokenyard.core.ids import new_organization_id
from tokenyard.storage.database import Database

MONTH_S = 31 * 86_400
MONTHS = ("2026-03", "2026-04", "2026-05")

Step = tuple[Literal["grant", "charge", "draft"], int, int]
STEPS = st.tuples(
    st.sampled_from(["grant", "charge", "charge", "draft"]),
    st.integers(0, len(MONTHS) - 1),  # the month; those of two steps may come in any order
    st.integers(1, 20).map(lambda units: units * 100),
)


@hypothesis_settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(steps=st.lists(STEPS, min_size=1, max_size=12))
async def test_bills_and_credit_left_are_what_is_owed(database: Database, redis: Redis, steps: list[Step]) -> None:
    organization = new_organization_id()
    books = InvoiceBooks(database, redis)
    granted, charged = dict.fromkeys(MONTHS, 0), dict.fromkeys(MONTHS, 0)
    for what, month, amount in steps:
        books.clock.advance(MARCH_MS / 1000 + month * MONTH_S - books.clock())
        if what == "grant":
            await books.grant(amount, organization)
            granted[MONTHS[month]] += amount
        elif what == "charge":
            await books.use(amount, organization, at_ms=MARCH_MS + month * MONTH_S * 1000)
            charged[MONTHS[month]] += amount
        else:
            await books.draft()
    await books.draft()

    bills = await books.bills(organization)
    assert [(period, total) for period, total, _, _ in bills] == [(m, sum_) for m, sum_ in charged.items() if sum_]
    due = sum(amount_due for _, _, _, amount_due in bills)
    left = sum(granted.values()) - sum(applied for _, _, applied, _ in bills)
    assert due - left == -await balance(database, organization)
    for period, total, applied, amount_due in bills:
        assert 0 <= applied <= total == applied + amount_due
        until = [month for month in MONTHS if month <= period]
        available = sum(granted[month] for month in until)
        used = sum(one[2] for one in bills if one[0] <= period)
        assert used <= available, "credit of a month never pays an earlier one"
        assert used == available or not amount_due, "nothing is due while credit is left"
