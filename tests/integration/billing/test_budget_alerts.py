"""Alerts come from what SQL has, each once a month, whoever looks and however often."""

import asyncio
from collections.abc import Collection, Mapping

import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis
from sqlalchemy import update

from support.billing.api import OTHER_TENANT, TENANT, billing_api
from support.billing.invoice_books import InvoiceBooks
from support.billing.stand import ACME, GLOBEX, KEY, MARCH_MS, PROJECT, EagerLeases, rows
from tokenyard.core.budgets import ALERT_PERCENTS, AlertRules
from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import NanoDollars
from tokenyard.storage.database import Database
from tokenyard.webhooks.events import write_event
from tokenyard.webhooks.tables import WebhookEventRow
from tokenyard_billing.alerts.loops import EVERYTHING_S, AlertMetrics, BudgetAlerts
from tokenyard_billing.bucket_leases import BucketLeases
from tokenyard_billing.tables import Balance, BudgetAlert

MONTH_S = 31 * 86_400


class FixedRules:
    """`ports.AlertRulesSource` for tests: the same limits for whoever has such scopes."""

    def __init__(self, limits: Mapping[str, int] | None = None, percents: tuple[int, ...] = ALERT_PERCENTS) -> None:
        self.limits = dict(limits or {})
        self.percents = percents
        self.asked = 0

    async def alert_rules(
        self, scopes: Mapping[OrganizationId, Collection[str]]
    ) -> Mapping[OrganizationId, AlertRules]:
        self.asked += len(scopes)
        return {
            owner: AlertRules(
                self.percents,
                {scope: NanoDollars(limit) for scope, limit in self.limits.items() if scope in (owner, *of_one)},
            )
            for owner, of_one in scopes.items()
        }


@pytest.fixture
def books(database: Database, redis: Redis) -> InvoiceBooks:
    return InvoiceBooks(database, redis)


def alerts_of(
    books: InvoiceBooks,
    rules: FixedRules,
    registry: CollectorRegistry | None = None,
    *,
    leases: BucketLeases | None = None,
) -> BudgetAlerts:
    return BudgetAlerts(
        database=books.database,
        leases=leases or books.worker.leases,
        rules=rules,
        metrics=AlertMetrics(registry or CollectorRegistry()),
        events=write_event,
        clock=books.clock,
    )


async def told(books: InvoiceBooks) -> set[tuple[str, str, str, int]]:
    return {(one.organization, one.budget, one.scope, one.percent) for one in await rows(books.database, BudgetAlert)}


async def test_a_wallet_is_told_once_a_percent_and_month(books: InvoiceBooks) -> None:
    registry = CollectorRegistry()
    loop = alerts_of(books, FixedRules(), registry)
    await books.grant(10_000)
    await books.use(4_900)
    await loop.step()
    assert await told(books) == set()
    await books.use(100)
    for _ in range(3):
        await loop.step()
    assert await told(books) == {(ACME, "wallet", ACME, 50)}
    await books.use(5_000)
    await loop.step()
    assert await told(books) == {(ACME, "wallet", ACME, percent) for percent in (50, 80, 100)}
    assert registry.get_sample_value("tokenyard_budget_alerts_total", {"budget": "wallet"}) == 3
    await books.grant(100_000)
    await books.use(60_000)
    await loop.step()
    assert len(await told(books)) == 3, "never twice, though it had gone down in between"
    books.clock.advance(MONTH_S)
    await books.use(45_000, at_ms=MARCH_MS + MONTH_S * 1000)
    await loop.step()
    found = [(one.month, one.percent) for one in await rows(books.database, BudgetAlert)]
    assert sorted(found) == [(month, percent) for month in ("2026-03", "2026-04") for percent in (50, 80, 100)]
    events = {one.data["id"]: one for one in await rows(books.database, WebhookEventRow) if one.type == "budget.alert"}
    assert events.keys() == {one.id for one in await rows(books.database, BudgetAlert)}
    assert {one.organization for one in events.values()} == {ACME}


async def test_each_scope_with_a_monthly_limit_is_told(books: InvoiceBooks) -> None:
    rules = FixedRules({ACME: 100_000, PROJECT: 10_000, KEY: 6_000, "key_other": 1}, percents=(60, 90))
    await books.grant(1_000_000)
    await books.use(6_000)
    await alerts_of(books, rules).step()
    assert await told(books) == {
        (ACME, "monthly_limit", PROJECT, 60),
        (ACME, "monthly_limit", KEY, 60),
        (ACME, "monthly_limit", KEY, 90),
    }
    [project] = [one for one in await rows(books.database, BudgetAlert) if one.scope == PROJECT]
    assert (project.used, project.total, project.month) == (6_000, 10_000, "2026-03")


async def test_no_percents_are_no_alerts(books: InvoiceBooks) -> None:
    await books.use(1_000)
    await alerts_of(books, FixedRules({KEY: 1}, percents=())).step()
    assert await told(books) == set()


async def test_only_who_spent_since_is_looked_at_and_all_are_when_it_is_time(books: InvoiceBooks) -> None:
    rules = FixedRules({KEY: 10_000_000})
    loop = alerts_of(books, rules)
    for organization in (ACME, GLOBEX):
        await books.grant(1_000_000, organization)
        await books.use(1_000, organization)
    async with books.database.transaction() as session:
        long_ago = update(Balance).where(Balance.organization == ACME)
        await session.execute(long_ago.values(updated_at_ms=MARCH_MS - 3_600_000))
    await loop.step()
    await loop.step()
    assert rules.asked == 3, "both at first, then the one whose balance changed lately"
    rules.limits[KEY] = 1_000
    await loop.step()
    assert {organization for organization, *_ in await told(books)} == {GLOBEX}
    loop._everything_at -= EVERYTHING_S
    await loop.step()
    assert {organization for organization, *_ in await told(books)} == {ACME, GLOBEX}, "a lowered limit is seen"


async def test_workers_that_look_at_the_same_moment_tell_once(books: InvoiceBooks) -> None:
    await books.use(1_000)
    registries = [CollectorRegistry() for _ in range(4)]
    loops = [alerts_of(books, FixedRules({KEY: 1_000}), registry) for registry in registries]
    outcomes = await asyncio.gather(*(loop.step() for loop in loops), return_exceptions=True)
    assert outcomes == [None] * len(loops)
    await loops[0].step()
    assert len(await rows(books.database, BudgetAlert)) == 6


async def test_who_holds_no_bucket_tells_nothing(books: InvoiceBooks) -> None:
    await books.use(1_000)
    loop = alerts_of(books, FixedRules({KEY: 1_000}))
    other = EagerLeases(books.database, books.clock, "other", lease_ms=1)
    assert await other.hold_now() == frozenset()
    none = alerts_of(books, FixedRules({KEY: 1_000}), leases=other)
    await none.step()
    assert await told(books) == set()
    books.clock.advance(60)
    await other.hold_now()
    await loop.step()
    assert await told(books) == set(), "its leases ran out: another worker writes now"


async def test_the_api_lists_alerts_of_the_caller_alone(books: InvoiceBooks) -> None:
    await books.use(1_000)
    await books.use(1_000, GLOBEX)
    await alerts_of(books, FixedRules({KEY: 1_000}, percents=(50, 100))).step()
    async with billing_api(books.database, books.redis) as api:
        status, first = await api.get("/v1/organization/budget_alerts", TENANT, limit="3")
        assert status == 200
        assert first["has_more"] is True
        _, rest = await api.get("/v1/organization/budget_alerts", TENANT, after=first["last_id"])
        found = [*first["data"], *rest["data"]]
        assert len({one["id"] for one in found}) == 4
        assert {one["organization"] for one in found} == {ACME}
        assert {(one["budget"], one["percent"], one["month"]) for one in found} == {
            (budget, percent, "2026-03") for budget in ("wallet", "monthly_limit") for percent in (50, 100)
        }
        status, refused = await api.get("/v1/organization/budget_alerts", OTHER_TENANT, after=first["last_id"])
        assert (status, refused["error"]["param"]) == (400, "after")
        _, empty = await api.get(f"/admin/organizations/{ACME}/budget_alerts", month="2026-04")
        assert empty["data"] == []
        assert (await api.get(f"/admin/organizations/{ACME}/budget_alerts", TENANT))[0] == 403
