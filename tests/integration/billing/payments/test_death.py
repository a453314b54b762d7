"""A worker that dies at any step of a payment, or wakes up too late, neither charges twice nor loses what was paid."""

import asyncio
from typing import Any

import pytest

from support.billing.stand import rows, worker
from support.card_payments.books import DOLLARS_7, PayingBooks
from support.card_payments.mortal import Died, dying, standing_still
from tokenyard.tenancy.blocking import OrganizationBlocks
from tokenyard.tenancy.store import record
from tokenyard.webhooks.events import write_event
from tokenyard_billing.bucket_leases import LEASE_MS
from tokenyard_billing.invoice_tables import Settlement
from tokenyard_billing.payments.posting import PaymentPosting


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("call", ["begin", "confirm"])
async def test_death_around_a_call(books: PayingBooks, call: str, before: bool) -> None:
    await books.set_up()
    await books.owe()
    with pytest.raises(Died):
        await books.pay(books.loop(dying(books.provider, call, before=before)))
    assert (await books.payment()).state == "created"
    assert await books.cash() == 0
    await books.pay()
    assert (await books.payment()).state == "succeeded"
    assert books.taken == await books.cash() == DOLLARS_7
    await books.agree()


@pytest.mark.parametrize("action", ["invoice.paid", "payment.succeeded"])
async def test_death_between_posting_and_commit(books: PayingBooks, action: str) -> None:
    await books.set_up()
    await books.owe()

    def audit(*given: Any, **more: Any) -> None:
        if given[3] == action:
            raise Died(action)
        record(*given, **more)

    loop = books.loop()
    loop._posting = PaymentPosting(audit, write_event, OrganizationBlocks())
    with pytest.raises(Died):
        await books.pay(loop)
    assert books.taken == DOLLARS_7
    assert await books.cash() == 0
    await books.pay()
    assert books.taken == await books.cash() == DOLLARS_7
    await books.agree()


async def test_a_worker_that_wakes_up_too_late_changes_nothing(books: PayingBooks) -> None:
    """It stood still in the call, its lease ran out, and another worker has finished."""
    await books.set_up()
    await books.owe()
    reached, go_on = asyncio.Event(), asyncio.Event()
    late = asyncio.create_task(books.pay(books.loop(standing_still(books.provider, "confirm", reached, go_on))))
    async with asyncio.timeout(10):
        await reached.wait()
    books.clock.advance(LEASE_MS * 2 / 1000)
    other = worker(books.database, books.redis, name="worker-2", clock=books.clock, provider=books.provider)
    await other.leases.hold({})
    assert other.payments is not None
    await other.payments.step()
    assert await books.cash() == DOLLARS_7
    go_on.set()
    await late
    assert books.taken == await books.cash() == DOLLARS_7
    assert len(await rows(books.database, Settlement)) == 1
    await books.agree()


async def test_two_workers_at_the_same_moment_charge_once(books: PayingBooks) -> None:
    """As if both believed to hold the bucket."""
    await books.set_up()
    await books.owe()
    await asyncio.gather(*(books.pay(books.loop()) for _ in range(3)))
    for _ in range(2):
        await books.pay()
    assert books.taken == await books.cash() == DOLLARS_7
    assert [one.state for one in await books.payments()] == ["succeeded"]
    await books.agree()
