"""The ledger finds the price of an organization's plan by itself, and no gateway's claim changes what is billed."""

from dataclasses import dataclass
from typing import Any

import pytest
from redis.asyncio import Redis

from support.billing.api import TENANT, billing_api
from support.billing.stand import (
    ACME,
    GLOBEX,
    KEY,
    MARCH_MS,
    MODEL,
    PRICE,
    PRICES,
    PROJECT,
    charges,
    claims,
    reconciler,
    reported,
    rows,
    send,
    settled,
    trained,
    usage,
    worker,
)
from support.fakes.clock import FrozenClock
from tokenyard.core.ids import OrganizationId, PriceId
from tokenyard.core.money import PRICE_LEAD_MS
from tokenyard.core.principal import Limits, Principal, Role
from tokenyard.metering.events import Outcome, UsageEvent
from tokenyard.storage.database import Database
from tokenyard.tenancy.api_keys import BOOTSTRAP
from tokenyard.tenancy.operator_store import PlanChoice, TenancyOperatorStore
from tokenyard.tenancy.plans.operator_store import PlanOperatorStore
from tokenyard.tenancy.plans.views import NewPlan, PlanChanges
from tokenyard.tenancy.tables import ApiKeyRow, OrganizationRow, ProjectRow
from tokenyard_billing.invoice_tables import Invoice, InvoiceLine
from tokenyard_billing.tables import Alarm, HourlyUsage, Waste

IN_FORCE_MS = MARCH_MS + PRICE_LEAD_MS
PRIORITY = {"priority": {"weight": 8, "price_multiplier": "2"}}


@dataclass
class Tariffs:
    """Plans as operators make them; `acme` is moved on one at `MARCH_MS`, and pays by it from `IN_FORCE_MS` on."""

    database: Database
    clock: FrozenClock

    async def make(self, name: str, multiplier: str, tiers: dict[str, Any] | None = None) -> None:
        body = NewPlan.model_validate({"name": name, "price_multiplier": multiplier, "service_tiers": tiers or {}})
        await PlanOperatorStore(self.database, self.clock).create(body.stated(), actor=BOOTSTRAP)

    async def change(self, name: str, multiplier: str) -> None:
        rules = PlanChanges(price_multiplier=multiplier).rules()
        await PlanOperatorStore(self.database, self.clock).change(
            name, name=None, limits=None, rules=rules, actor=BOOTSTRAP
        )

    async def caller(self) -> Principal:
        """Return who calls, as a gateway looks it up now."""
        credential = await TenancyOperatorStore(self.database, self.clock).credential([KEY])
        assert credential is not None
        assert isinstance(credential.holder, Principal)
        return credential.holder

    async def move(self, plan: str | None) -> None:
        await TenancyOperatorStore(self.database, self.clock).change_organization(
            ACME, name=None, limits=None, archived=None, actor=BOOTSTRAP, plan=PlanChoice(plan)
        )


@pytest.fixture
async def tariffs(database: Database) -> Tariffs:
    made = Tariffs(database, FrozenClock(MARCH_MS / 1000))
    async with database.transaction() as session:
        made_at = {"name": "", "limits": Limits(), "created_at": 1}
        session.add(OrganizationRow(id=ACME, slug="acme", default_project_id=PROJECT, **made_at))
        await session.flush()
        session.add(ProjectRow(id=PROJECT, organization_id=ACME, **made_at))
        await session.flush()
        owner = {"organization_id": ACME, "project_id": PROJECT, "role": Role.TENANT}
        session.add(ApiKeyRow(id=KEY, hash=KEY, last4="", pepper_version=1, **owner, **made_at))
    await made.make("cheap", "0.8", PRIORITY)
    await made.move("cheap")
    return made


async def taken(database: Database, redis: Redis, *events: UsageEvent) -> dict[str, tuple[str, int]]:
    """Return price and amount of each charge."""
    await send(redis, *events)
    await worker(database, redis).consumer.step()
    return {key: (charge.price, charge.amount) for key, charge in (await charges(database)).items()}


async def alarms(database: Database) -> list[tuple[str, str]]:
    return [(alarm.kind, alarm.subject) for alarm in await rows(database, Alarm)]


def used(
    request: str, price: str, at_ms: int = IN_FORCE_MS, organization: OrganizationId = ACME, **more: Any
) -> UsageEvent:
    made = claims(request, organization=organization, price=PriceId(price), admitted_at_ms=at_ms, **more)
    return settled(made, usage(10, 2))


@pytest.mark.usefixtures("tariffs")
async def test_a_use_is_charged_by_the_plan_of_its_moment(database: Database, redis: Redis) -> None:
    found = await taken(
        database,
        redis,
        used("req_before", PRICE, IN_FORCE_MS - 60_000),
        used("req_after", f"{PRICE}@0.8", IN_FORCE_MS + 60_000),
        used("req_dear", f"{PRICE}@2", IN_FORCE_MS + 60_000, tier="priority"),
        used("req_other", PRICE, IN_FORCE_MS + 60_000, GLOBEX),
    )
    assert found == {
        "req_before": (PRICE, 10 * 100 + 2 * 400),
        "req_after": (f"{PRICE}@0.8", 10 * 80 + 2 * 320),
        "req_dear": (f"{PRICE}@2", 10 * 200 + 2 * 800),
        "req_other": (PRICE, 10 * 100 + 2 * 400),
    }
    assert await alarms(database) == []
    tiers = {key: charge.service_tier for key, charge in (await charges(database)).items()}
    assert tiers == {"req_before": "default", "req_after": "default", "req_dear": "priority", "req_other": "default"}


@pytest.mark.usefixtures("tariffs")
@pytest.mark.parametrize("claim", [PRICE, f"{PRICE}@0.1", f"{PRICE}@9.9", f"{PRICE}@0", f"{PRICE}@x", f"{PRICE}@2"])
async def test_a_false_claim_is_not_billed_and_raises_an_alarm(database: Database, redis: Redis, claim: str) -> None:
    found = await taken(database, redis, used("req_a", claim, IN_FORCE_MS + 60_000))
    assert found == {"req_a": (f"{PRICE}@0.8", 10 * 80 + 2 * 320)}
    assert await alarms(database) == [("price_differs", "req_a")]


async def test_an_organization_without_a_plan_gets_no_multiplier_by_claiming_one(
    database: Database, redis: Redis
) -> None:
    found = await taken(database, redis, used("req_a", f"{PRICE}@0.5"))
    assert found == {"req_a": (PRICE, 10 * 100 + 2 * 400)}
    assert await alarms(database) == [("price_differs", "req_a")]


async def test_what_comes_late_is_charged_as_it_would_have_been_in_time(
    database: Database, redis: Redis, tariffs: Tariffs
) -> None:
    tariffs.clock.advance(3_600)
    await tariffs.change("cheap", "0.5")
    tariffs.clock.advance(3_600)
    await tariffs.move(None)
    tariffs.clock.advance(3_600)
    hour_ms = 3_600_000
    moments = {
        "req_listed": (MARCH_MS, ""),
        "req_08": (MARCH_MS + hour_ms, "@0.8"),
        "req_05": (MARCH_MS + 2 * hour_ms, "@0.5"),
        "req_left": (MARCH_MS + 3 * hour_ms, ""),
    }
    events = [used(request, f"{PRICE}{end}", at_ms) for request, (at_ms, end) in moments.items()]
    found = await taken(database, redis, *events)
    assert {request: price for request, (price, _) in found.items()} == {
        request: f"{PRICE}{end}" for request, (_, end) in moments.items()
    }
    assert await alarms(database) == []


@pytest.mark.usefixtures("tariffs")
async def test_whatever_is_rated_follows_the_plan(database: Database, redis: Redis) -> None:
    """The replica's report alone, an overdue decision, waste, and training."""
    at_ms, price = IN_FORCE_MS + 60_000, PriceId(f"{PRICE}@0.8")
    first = claims("req_a", price=price, admitted_at_ms=at_ms)
    again = claims("req_a", 2, price=price, admitted_at_ms=at_ms)
    left = claims("req_b", price=price, admitted_at_ms=at_ms)
    event = trained("ftjob-1", 5)
    event = type(event)(
        event.organization, event.project, event.key, event.job, MODEL, MODEL, price, 5, at_ms, event.budgets
    )
    stand = worker(database, redis, report_wait_ms=0)
    await send(redis, reported(first, usage(1, 1)), settled(again, usage(10, 2)), event)
    await send(redis, settled(left, usage(10, 2), Outcome.CLIENT_LEFT))
    for _ in range(2):
        await stand.consumer.step()
    found = {key: (charge.price, charge.amount) for key, charge in (await charges(database)).items()}
    assert found == dict.fromkeys(("req_a", "req_b"), (price, 10 * 80 + 2 * 320)) | {"ftjob-1": (price, 5 * 2_400)}
    assert [waste.amount for waste in await rows(database, Waste)] == [80 + 320]
    assert await alarms(database) == []


@pytest.mark.usefixtures("tariffs")
async def test_invoices_usage_and_costs_show_the_plan_s_price(database: Database, redis: Redis) -> None:
    at_ms = IN_FORCE_MS + 60_000
    stand = worker(database, redis)
    await send(
        redis,
        used("req_a", PRICE, MARCH_MS),
        used("req_b", f"{PRICE}@0.8", at_ms),
        used("req_c", f"{PRICE}@2", at_ms, tier="priority"),
    )
    await stand.consumer.step()
    await stand.drafter.step()
    lines = [(line.price, line.kind, line.quantity, line.rate) for line in await rows(database, InvoiceLine)]
    assert sorted(lines) == [
        (PRICE, "input", 10, 100),
        (PRICE, "output", 2, 400),
        (f"{PRICE}@0.8", "input", 10, 80),
        (f"{PRICE}@0.8", "output", 2, 320),
        (f"{PRICE}@2", "input", 10, 200),
        (f"{PRICE}@2", "output", 2, 800),
    ]
    [invoice] = await rows(database, Invoice)
    total = sum(quantity * rate for _, _, quantity, rate in lines)
    assert invoice.total == total == sum(row.amount for row in await rows(database, HourlyUsage))
    async with billing_api(database, redis) as api:
        day = MARCH_MS // 86_400_000 * 86_400
        _, page = await api.get(
            "/v1/organization/costs", TENANT, start_time=str(day), end_time=str(day + 86_400), group_by="line_item"
        )
    values = [float(result["amount"]["value"]) for bucket in page["data"] for result in bucket["results"]]
    assert round(sum(values) * 10**9) == total
    books = await reconciler(database, redis).reconcile()
    # Nobody carries here what tenancy tells.
    assert [one for one in books.differences if one.broken and one.name != "message_not_carried"] == []


async def test_no_cached_caller_disagrees_with_the_ledger(database: Database, redis: Redis, tariffs: Tariffs) -> None:
    """A gateway claims by what it knew up to ten minutes ago, while plans change every few minutes."""
    await tariffs.make("dear", "1.5")
    changes = {
        2: tariffs.change("cheap", "0.5"),
        3: tariffs.change("dear", "3"),
        7: tariffs.move("dear"),
        8: tariffs.change("dear", "0"),
        9: tariffs.move(None),
        20: tariffs.move("cheap"),
        31: tariffs.change("cheap", "1"),
    }
    known: list[Principal] = []
    claimed: dict[str, str] = {}
    for minute in range(60):
        if minute in changes:
            await changes[minute]
        known.append(await tariffs.caller())
        at_ms = tariffs.clock.now_ms()
        for age in (0, 1, 5, 10):
            listed = PRICES.price(MODEL, fine_tuned=False, at_ms=at_ms)
            assert listed is not None
            price = known[max(0, minute - age)].price_of(listed, "default", at_ms).id
            claimed[f"req_{minute}_{age}"] = price
            await send(redis, used(f"req_{minute}_{age}", price, at_ms))
        tariffs.clock.advance(60)
    await worker(database, redis).consumer.step()
    assert {key: charge.price for key, charge in (await charges(database)).items()} == claimed
    assert await alarms(database) == []
    assert {price.removeprefix(PRICE) for price in claimed.values()} == {"", "@0.8", "@0.5", "@0", "@3"}
