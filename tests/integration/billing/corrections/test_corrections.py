"""Charges are reversed or rated anew: bills, budgets and usage follow, once, whatever dies meanwhile."""

import asyncio

import pytest
from redis.asyncio import Redis
from sqlalchemy import select

from support.billing.invoice_books import OPERATOR, InvoiceBooks
from support.billing.stand import (
    ACME,
    MARCH_MS,
    MODEL,
    PRICE,
    balance,
    charges,
    claims,
    live_budget,
    month,
    put_pending,
    rows,
    send,
    settled,
    usage,
)
from tokenyard.core.errors import Conflict, InvalidRequest, NotFound
from tokenyard.core.ids import OrganizationId, PriceId
from tokenyard.storage.database import Database
from tokenyard.tenancy.tables import AuditRow
from tokenyard_billing.corrections import applying
from tokenyard_billing.corrections.selection import VERSIONS, Scope
from tokenyard_billing.invoice_tables import Correction, InvoiceLine
from tokenyard_billing.periods import DAY_MS
from tokenyard_billing.tables import HourlyUsage, Spending

FEBRUARY_MS = MARCH_MS - 28 * DAY_MS


@pytest.fixture
async def books(database: Database, redis: Redis) -> InvoiceBooks:
    """Two requests of March, not closed: 100 + 400 and 1,000 + 2,000 nano-dollars."""
    books = InvoiceBooks(database, redis)
    await books.spend("req_a", usage(1, 1))
    await books.spend("req_b", usage(10, 5))
    return books


async def lines(books: InvoiceBooks) -> list[tuple[object, ...]]:
    columns = InvoiceLine.price, InvoiceLine.kind, InvoiceLine.quantity, InvoiceLine.amount
    query = select(*columns).where(InvoiceLine.invoice == "inv_acme_2026-03").order_by(InvoiceLine.number)
    async with books.database.reading() as session:
        return [tuple(row) for row in await session.execute(query)]


async def test_a_request_is_reversed_as_if_it_had_not_been(books: InvoiceBooks) -> None:
    done = await books.correct(request="req_b")
    assert (done.charges, done.lowered, done.raised) == (1, 3_000, 0)
    assert done.applied_at_ms is not None
    await books.agree()
    assert await books.bills() == [("2026-03", 500, 0, 500)]
    assert await lines(books) == [(PRICE, "input", 1, 100), (PRICE, "output", 1, 400)]
    assert await balance(books.database, ACME) == -500
    assert await balance(books.database, ACME, "revenue") == 500
    assert {one.spent for one in await rows(books.database, Spending)} == {500}
    assert [(one.requests, one.prompt_tokens, one.amount) for one in await rows(books.database, HourlyUsage)] == [
        (1, 1, 500)
    ]
    undone = (await charges(books.database))["req_b~reversed"]
    assert (undone.rule, undone.reverses, undone.amount, undone.prompt_tokens) == ("reversed", "req_b", -3_000, -10)


async def test_live_budgets_follow(books: InvoiceBooks) -> None:
    await put_pending(books.redis, ACME, "other", 77)
    await put_pending(books.redis, ACME, "other", 77, month(ACME))
    await books.correct(request="req_b")
    assert (await live_budget(books.redis, ACME))["ledger"] == -500
    assert (await live_budget(books.redis, ACME, month(ACME)))["ledger"] == -500


async def test_a_month_is_rated_anew_by_another_card(books: InvoiceBooks) -> None:
    await books.spend("req_c", usage(10, 5), at_ms=FEBRUARY_MS)
    done = await books.correct("cheap", period="2026-03")
    assert (done.charges, done.lowered, done.raised) == (2, 1_200, 0)
    await books.agree()
    assert await books.bills() == [("2026-02", 3_000, 0, 3_000), ("2026-03", 2_300, 0, 2_300)]
    price = f"cheap/{MODEL}"
    assert await lines(books) == [(price, "input", 11, 1_100), (price, "output", 6, 1_200)]
    [march] = [one for one in await rows(books.database, HourlyUsage) if one.price == price]
    assert (march.requests, march.prompt_tokens, march.amount) == (2, 11, 2_300)


async def test_what_costs_more_is_billed(books: InvoiceBooks) -> None:
    done = await books.correct("dear", period="2026-03")
    assert (done.charges, done.lowered, done.raised) == (2, 0, 2_400)
    await books.agree()
    assert await books.bills() == [("2026-03", 5_900, 0, 5_900)]


async def test_what_was_corrected_is_corrected_again(books: InvoiceBooks) -> None:
    await books.correct("cheap", request="req_b")
    await books.correct("dear", request="req_b")
    await books.correct(request="req_b")
    await books.agree()
    made = await charges(books.database)
    assert {key: made[key].amount for key in made if key.startswith("req_b")} == {
        "req_b": 3_000,
        "req_b~reversed": -3_000,
        "req_b~1": 2_000,
        "req_b~1~reversed": -2_000,
        "req_b~2": 5_000,
        "req_b~2~reversed": -5_000,
    }
    assert await books.bills() == [("2026-03", 500, 0, 500)]
    with pytest.raises(InvalidRequest, match="Nothing would change"):
        await books.correct(request="req_b")


async def test_what_was_rated_anew_too_often_is_left_alone(books: InvoiceBooks) -> None:
    for number in range(VERSIONS):
        await books.correct(("cheap", "dear")[number % 2], request="req_a")
    with pytest.raises(InvalidRequest, match="Nothing would change"):
        await books.correct("cheap", request="req_a")
    done = await books.correct(request="req_a")
    assert done.charges == 1
    await books.agree()
    assert await books.bills() == [("2026-03", 3_000, 0, 3_000)]


async def test_what_was_looked_at_is_what_is_done(books: InvoiceBooks) -> None:
    for card in (None, "cheap", "dear"):
        seen = await books.corrections.preview(ACME, Scope(period="2026-03"), card)
        sums = [sum(getattr(line, name) for line in seen.lines) for name in ("charges", "lowered", "raised")]
        done = await books.correct(card, period="2026-03")
        assert [done.charges, done.lowered, done.raised] == sums, card
        if card is None:
            await books.spend("req_d", usage(3, 3, 1))
    await books.agree()


async def test_the_same_key_corrects_once(books: InvoiceBooks) -> None:
    first = await books.correct(once="once", request="req_a")
    assert (await books.correct(once="once", request="req_a")).id == first.id
    with pytest.raises(Conflict, match="was used for another"):
        await books.correct(once="once", request="req_b")
    with pytest.raises(Conflict, match="was used for another"):
        await books.correct("cheap", once="once", request="req_a")
    assert len(await rows(books.database, Correction)) == 1
    asked = [
        books.corrections.request(
            ACME, Scope(request="req_b"), None, reason="wrong", actor=OPERATOR, idempotency_key="at once"
        )
        for _ in range(3)
    ]
    assert len({one.id for one in await asyncio.gather(*asked)}) == 1


async def test_two_that_overlap_take_a_charge_back_once(books: InvoiceBooks) -> None:
    for scope in (Scope(request="req_b"), Scope(period="2026-03")):
        await books.corrections.request(ACME, scope, None, reason="wrong", actor=OPERATOR, idempotency_key=repr(scope))
    await books.worker.corrections.step()
    await books.agree()
    assert await balance(books.database, ACME) == 0
    assert sum(one.charges for one in await rows(books.database, Correction)) == 2


async def test_only_what_is_meant_and_was_admitted_by_then_is_corrected(books: InvoiceBooks) -> None:
    await books.use(700, OrganizationId("org_globex"))
    await books.corrections.request(
        ACME,
        Scope(since_ms=MARCH_MS, model=MODEL),
        None,
        reason="wrong",
        actor=OPERATOR,
        idempotency_key="a",
    )
    books.clock.advance(1)
    await books.spend("req_later", usage(1, 0), at_ms=MARCH_MS + 1_000)
    await books.worker.corrections.step()
    await books.agree()
    assert await balance(books.database, ACME) == -100
    assert await balance(books.database, OrganizationId("org_globex")) == -700
    for scope in ({"until_ms": MARCH_MS}, {"model": "other"}, {"project": "proj_2"}, {"key": "key_2"}):
        with pytest.raises(InvalidRequest, match="Nothing would change"):
            await books.correct(since_ms=0, **scope)


async def test_bad_corrections_are_refused(books: InvoiceBooks) -> None:
    with pytest.raises(InvalidRequest, match="Say which charges"):
        await books.correct(model=MODEL)
    with pytest.raises(InvalidRequest, match="no rate card 'unknown'"):
        await books.correct("unknown", period="2026-03")
    with pytest.raises(NotFound):
        await books.corrections.correction("cor_none")


async def test_what_came_since_and_is_not_on_the_card_keeps_its_price(books: InvoiceBooks) -> None:
    """A correction is refused where there is such a charge; one that comes afterwards holds up no other."""
    other = "all-minilm-l6-v2"
    await books.corrections.request(
        ACME, Scope(period="2026-03"), "cheap", reason="promised", actor=OPERATOR, idempotency_key="a"
    )
    made = claims("req_other", model=other, base_model=other, price=PriceId(f"2026-01-01/{other}"))
    await send(books.redis, settled(made, usage(1_000, 0)))
    await books.worker.consumer.step()
    assert (await charges(books.database))["req_other"].amount > 0
    await books.worker.corrections.step()
    [done] = await rows(books.database, Correction)
    assert (done.charges, done.lowered, done.raised) == (2, 1_200, 0)
    assert done.applied_at_ms is not None
    await books.agree()
    with pytest.raises(InvalidRequest, match=f"no price in place of 2026-01-01/{other}"):
        await books.correct("cheap", period="2026-03")


@pytest.mark.parametrize("dies_after", range(4))
async def test_a_worker_that_dies_corrects_nothing_twice(
    books: InvoiceBooks, monkeypatch: pytest.MonkeyPatch, dies_after: int
) -> None:
    """Seven charges in parts of two: a part is committed whole, or not at all."""
    monkeypatch.setattr(applying, "PART", 2)
    for number in range(5):
        await books.spend(f"req_{number}", usage(1, 0), at_ms=MARCH_MS - number % 2)
    await books.corrections.request(
        ACME, Scope(period="2026-03"), None, reason="wrong", actor=OPERATOR, idempotency_key="a"
    )
    real, parts = applying.apply_part, 0

    async def mortal(*arguments: object, **named: object) -> object:
        nonlocal parts
        changes = await real(*arguments, **named)  # type: ignore[arg-type]
        parts += 1
        if parts > dies_after:
            raise asyncio.CancelledError
        return changes

    monkeypatch.setattr("tokenyard_billing.corrections.loops.apply_part", mortal)
    with pytest.raises(asyncio.CancelledError):
        await books.worker.corrections.step()
    [begun] = await rows(books.database, Correction)
    assert (begun.charges, begun.applied_at_ms) == (2 * dies_after, None)
    await books.agree()
    monkeypatch.setattr("tokenyard_billing.corrections.loops.apply_part", real)
    await books.worker.corrections.step()
    await books.agree()
    assert await balance(books.database, ACME) == 0
    [done] = await rows(books.database, Correction)
    assert (done.charges, done.lowered) == (7, 4_000)
    actions = [one.action for one in await rows(books.database, AuditRow) if one.resource == done.id]
    assert actions == ["correction.requested", "correction.applied"]
