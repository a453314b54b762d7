"""Books that agree pass, however busy they are; rows that were tampered with are found, each by its own name."""

import asyncio

import pytest
from redis.asyncio import Redis
from sqlalchemy import func, select, text

from support.billing.busy_books import BusyBooks
from support.billing.stand import (
    ACME,
    GLOBEX,
    KEY,
    MODEL,
    PRICE,
    PROJECT,
    FixedJobs,
    charges,
    claims,
    reconciler,
    reported,
    send,
    settled,
    trained,
    usage,
    worker,
)
from support.fakes.clock import FrozenClock
from support.redis_reader import as_bytes
from tokenyard.core.redis_keys import bucket_of, usage_stream
from tokenyard.metering.events import Outcome
from tokenyard.storage.database import Database
from tokenyard.storage.tables import OutboxRow
from tokenyard.storage.time_limits import TimeLimits
from tokenyard_billing.periods import HOUR_MS
from tokenyard_billing.tables import Charge

Expected = set[tuple[str, str]]
SCOPES = {f"{ACME}/{scope}/{{month}}" for scope in (ACME, PROJECT, KEY)}
SPENDING_ELSEWHERE: Expected = {("spending_not_reservations", scope) for scope in SCOPES}


async def test_books_in_full_swing_are_ok(books: BusyBooks) -> None:
    found = await books.reconcile()
    assert (found.ok, found.differences) == (True, [])
    assert (found.tokens.reported, found.tokens.charged, found.tokens.waste) == (72, 60, 12)
    assert found.tokens.unexplained == 0


async def test_what_may_be_is_named_and_the_sums_add_up(database: Database, redis: Redis) -> None:
    await send(
        redis,
        settled(claims("req_a"), usage(10, 5)),
        reported(claims("req_a"), usage(10, 5)),
        settled(claims("req_b", 2), usage(10, 2), Outcome.REPLICA_LOST),
        reported(claims("req_b", 1), usage(10, 1)),
        reported(claims("req_b", 2), usage(10, 4)),
        settled(claims("req_c"), usage(3, 3)),
        reported(claims("req_d"), usage(1, 1)),
        settled(claims("req_e", server="sold"), usage(4, 4)),
        settled(claims("req_f", server="sold"), usage(4, 2), Outcome.LEFT_ELSEWHERE),
        trained("ftjob-1", 100),
    )
    stream = usage_stream(bucket_of(ACME))
    dead = f"{stream}/{as_bytes(await redis.xadd(stream, {'event': '{broken'})).decode()}"
    await worker(database, redis).consumer.step()
    found = await reconciler(database, redis).reconcile()
    assert found.ok
    assert found.tokens.unexplained == 0
    assert found.tokens.named == {
        "replica_silent": -6,
        "served_elsewhere": -14,
        "counts_differ": 2,
        "undecided": 2,
    }
    assert (found.tokens.reported, found.tokens.charged, found.tokens.waste) == (42, 47, 11)
    assert {(one.name, one.subject) for one in found.differences} == {
        ("replica_silent", "req_c.1"),
        ("counts_differ", "req_b.2"),
        ("undecided", "req_d.1"),
        ("dead_letter", dead),
        ("alarm", f"dead_letter/{dead}"),
    }


@pytest.mark.parametrize(
    ("tampering", "expected"),
    [
        (
            "UPDATE billing_entries SET amount = amount + 1 WHERE account = 'wallet' AND transaction = '{tx}'",
            {("transaction_not_zero", "{tx}"), ("balance_not_entries", f"{ACME}/wallet")},
        ),
        (
            "UPDATE billing_balances SET amount = amount + 1 WHERE organization = 'org_acme' AND account = 'granted'",
            {("balance_not_entries", f"{ACME}/granted")},
        ),
        (
            "DELETE FROM billing_balances WHERE organization = 'org_acme' AND account = 'revenue'",
            {("balance_not_entries", f"{ACME}/revenue")},
        ),
        (
            "UPDATE billing_charges SET amount = amount + 1 WHERE charge_key = 'req_a'",
            {
                ("charges_not_revenue", "{tx}"),
                ("usage_not_charges", "{usage}"),
                ("invoice_not_charges", f"inv_acme_{{month}}/{{month}}/{MODEL}/{PRICE}"),
                *(("spending_not_charges", scope) for scope in SCOPES),
            },
        ),
        (
            "UPDATE billing_charges SET transaction = NULL WHERE charge_key = 'req_a'",
            {("charge_not_posted", "req_a"), ("charges_not_revenue", "{tx}")},
        ),
        (
            "UPDATE billing_charges SET period = '2020-01' WHERE charge_key = 'req_a'",
            {
                ("charge_in_wrong_period", "req_a"),
                ("invoice_not_charges", f"inv_acme_{{month}}/2020-01/{MODEL}/{PRICE}"),
                ("invoice_not_charges", f"inv_acme_{{month}}/{{month}}/{MODEL}/{PRICE}"),
            },
        ),
        (
            "UPDATE billing_charges SET billed_in = '2020-01' WHERE charge_key = 'req_a'",
            {
                ("charge_in_wrong_period", "req_a"),
                ("invoice_missing", f"{ACME}/2020-01"),
                ("invoice_not_charges", f"inv_acme_{{month}}/{{month}}/{MODEL}/{PRICE}"),
            },
        ),
        (
            "UPDATE billing_hourly_usage SET requests = requests + 1"
            " WHERE organization = 'org_acme' AND kind = 'inference'",
            {("usage_not_charges", "{usage}")},
        ),
        (
            "UPDATE billing_hourly_usage SET amount = amount + CASE kind WHEN 'training' THEN -1 ELSE 1 END"
            " WHERE organization = 'org_acme'",
            {("usage_not_charges", "{usage}"), ("usage_not_charges", "{training}")},
        ),
        ("DELETE FROM billing_waste WHERE request = 'req_a'", {("tokens_unexplained", ACME)}),
        (
            "UPDATE billing_spending SET spent = spent + 1 WHERE organization = 'org_acme' AND scope = 'proj_1'",
            {("spending_not_charges", f"{ACME}/{PROJECT}/{{month}}")},
        ),
        (
            "UPDATE billing_spending SET reserved = reserved + 1 WHERE organization = 'org_acme' AND scope = 'proj_1'",
            {("spending_not_reservations", f"{ACME}/{PROJECT}/{{month}}")},
        ),
        (
            "DELETE FROM billing_spending WHERE organization = 'org_globex' AND scope = 'proj_2'",
            {("spending_not_charges", f"{GLOBEX}/proj_2/{{month}}")},
        ),
        (
            "INSERT INTO billing_spending (organization, scope, month, spent, reserved, version)"
            " VALUES ('org_acme', 'key_gone', '2020-01', 7, 0, 1)",
            {("spending_not_charges", f"{ACME}/key_gone/2020-01")},
        ),
        (
            "UPDATE billing_reservations SET amount = amount + 1 WHERE job = 'ftjob-open'",
            {("reserved_not_reservations", ACME), *SPENDING_ELSEWHERE},
        ),
        (
            "UPDATE billing_reservations SET state = 'open' WHERE job = 'ftjob-done'",
            {("reservation_not_closed", "ftjob-done"), ("reserved_not_reservations", ACME), *SPENDING_ELSEWHERE},
        ),
        (
            "UPDATE billing_reservations SET state = 'charged' WHERE job = 'ftjob-open'",
            {("reservation_without_charge", "ftjob-open"), ("reserved_not_reservations", ACME), *SPENDING_ELSEWHERE},
        ),
        (
            "INSERT INTO billing_reservations (job, organization, project, key, amount, budgets, state, reserved_at_ms)"
            " VALUES ('ftjob-half', 'org_acme', 'proj_1', 'key_1', 7, '[]', 'holding', 0)",
            {("reservation_half_done", "ftjob-half")},
        ),
    ],
)
async def test_a_row_that_was_tampered_with_is_found_by_name(
    books: BusyBooks, tampering: str, expected: Expected
) -> None:
    found = await charges(books.database)
    names = {
        "tx": str(found["req_a"].transaction),
        "month": books.month,
        "usage": _hour(found["req_a"]),
        "training": _hour(found["ftjob-done"]),
    }
    await books.tamper(tampering.format(**names))
    assert await books.broken() == {(name, subject.format(**names)) for name, subject in expected}


async def test_one_organization_does_not_make_good_what_another_lacks(books: BusyBooks) -> None:
    await books.tamper(
        "UPDATE billing_waste SET prompt_tokens = prompt_tokens + CASE request WHEN 'req_a' THEN 1 ELSE -1 END"
        " WHERE request IN ('req_a', 'req_x')"
    )
    assert await books.broken() == {("tokens_unexplained", ACME), ("tokens_unexplained", GLOBEX)}
    assert (await books.reconcile()).tokens.unexplained == 0


async def test_a_reservation_whose_job_ended_long_ago_is_orphaned(books: BusyBooks) -> None:
    soon, late = (FrozenClock(books.clock.now_ms() / 1000 + seconds) for seconds in (3_000, 4_000))
    assert (await reconciler(books.database, books.redis, clock=soon).reconcile()).ok
    assert (await reconciler(books.database, books.redis, clock=late, jobs=FixedJobs("ftjob-open")).reconcile()).ok
    found = await reconciler(books.database, books.redis, clock=late).reconcile()
    assert [(one.name, one.subject) for one in found.differences] == [("reservation_orphaned", "ftjob-open")]


@pytest.mark.parametrize(("change", "late"), [("failures = 1", True), ("due_at_ms = 0", True), ("failures = 0", False)])
async def test_a_message_that_failed_or_waits_long_is_named(books: BusyBooks, change: str, late: bool) -> None:
    async with books.database.reading() as session:
        first = await session.scalar(select(func.min(OutboxRow.id)))
    await books.tamper(f"UPDATE storage_outbox SET carried_to = NULL, {change} WHERE id = {first}")
    assert await books.broken() == ({("message_not_carried", f"budgets/{first}")} if late else set())


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
async def test_the_checks_may_take_longer_than_a_request(database: Database, redis: Redis) -> None:
    hurried = Database(database.engine.url.render_as_string(hide_password=False), TimeLimits(statement_s=1))
    async with database.transaction() as session:
        await session.execute(text("LOCK TABLE billing_entries"))
        checking = asyncio.create_task(reconciler(hurried, redis).reconcile())
        await asyncio.wait([checking], timeout=1.5)
    assert (await checking).ok
    await hurried.close()


def _hour(charge: Charge) -> str:
    """Return the subject of the hourly usage that the charge is part of."""
    hour = charge.admitted_at_ms // HOUR_MS * HOUR_MS
    scopes = f"{charge.organization}/{charge.project}/{charge.key}"
    return f"{scopes}/{charge.kind}/{charge.model}/{charge.price}/{charge.end_user}/{hour}"
