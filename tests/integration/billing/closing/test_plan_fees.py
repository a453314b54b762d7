"""Plans ask a fee and a minimum for each month; months and their parts are worked out by hand here."""

import asyncio
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from redis.asyncio import Redis

from support.billing.invoice_books import CHEAP, InvoiceBooks
from support.billing.stand import ACME, GLOBEX, MODEL, PROJECT, rows, usage
from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import NANO_PER_DOLLAR, PRICE_LEAD_MS
from tokenyard.core.principal import Limits
from tokenyard.limits.revisions import RedisRevisions
from tokenyard.storage.database import Database
from tokenyard.storage.transactional_outbox import TransactionalOutbox
from tokenyard.tenancy.api_keys import BOOTSTRAP
from tokenyard.tenancy.changes import TOPIC as TENANCY
from tokenyard.tenancy.changes import TenancyCarrier
from tokenyard.tenancy.operator_store import PlanChoice, TenancyOperatorStore
from tokenyard.tenancy.plans.operator_store import PlanOperatorStore
from tokenyard.tenancy.plans.views import NewPlan, PlanChanges
from tokenyard.tenancy.tables import OrganizationRow
from tokenyard_billing.invoice_tables import BillingPeriod, Invoice, InvoiceLine, TimeZoneChange
from tokenyard_billing.periods import DAY_MS
from tokenyard_billing.tables import Alarm, Charge, HourlyUsage, Spending

SQLITE = pytest.mark.parametrize("database", ["sqlite"], indirect=True)  # other tests ask PostgreSQL all the same


def moment(day: str, zone: str = "UTC") -> int:
    return round(datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


@dataclass
class Subscriptions:
    """`acme` has plans; whatever is said of one holds from the beginning of the day that it is said for."""

    books: InvoiceBooks

    async def make(self, name: str, fee: str = "0", minimum: str = "0") -> None:
        asked = {"monthly_fee_dollars": fee, "monthly_minimum_dollars": minimum}
        body = NewPlan.model_validate({"name": name, **asked})
        await self._plans.create(body.stated(), actor=BOOTSTRAP)

    async def restate(self, name: str, day: str, *, zone: str = "UTC", **changes: str) -> None:
        self._go_before(day, zone)
        rules = PlanChanges.model_validate(changes).rules()
        await self._plans.change(name, name=None, limits=None, rules=rules, actor=BOOTSTRAP)

    async def move(self, plan: str | None, day: str, *, zone: str = "UTC", whose: OrganizationId = ACME) -> None:
        self._go_before(day, zone)
        await self._change(whose, plan=PlanChoice(plan))

    async def archive(self, archived: bool, day: str) -> None:
        self._go_before(day, "UTC")
        await self._change(archived=archived)

    async def close_month(self, next_month: str) -> None:
        """Close what ended before the day: a day after it, at 2 a.m."""
        self.go(moment(next_month) + DAY_MS + 2 * 3_600_000)
        await self.books.close()

    def go(self, at_ms: int) -> None:
        self.books.clock.advance(at_ms / 1000 - self.books.clock())

    async def fees(self) -> list[tuple[str, str, float]]:
        """Return period, price without its amount, and dollars of all fees that are billed, in the order of dates."""
        found = [one for one in await rows(self.books.database, Charge) if one.fees]
        return [
            (one.billed_in, one.price.rpartition("/")[0], one.amount / NANO_PER_DOLLAR)
            for one in sorted(found, key=lambda one: (one.admitted_at_ms, one.kind != "plan_fee"))
        ]

    async def agree(self) -> None:
        """Every check of the books passes, once gateways know of the plans."""
        books = self.books
        carrier = TenancyCarrier(books.redis, RedisRevisions(books.redis))
        await TransactionalOutbox(books.database, books.redis, books.clock, {TENANCY: carrier.carry}).step()
        await books.agree()

    @property
    def _plans(self) -> PlanOperatorStore:
        return PlanOperatorStore(self.books.database, self.books.clock)

    def _go_before(self, day: str, zone: str) -> None:
        self.go(moment(day, zone) - PRICE_LEAD_MS)

    async def _change(
        self, whose: OrganizationId = ACME, *, plan: PlanChoice | None = None, archived: bool | None = None
    ) -> None:
        await TenancyOperatorStore(self.books.database, self.books.clock).change_organization(
            whose, name=None, limits=None, archived=archived, actor=BOOTSTRAP, plan=plan
        )


def organization(identity: OrganizationId) -> OrganizationRow:
    whose = {"slug": identity, "name": "", "default_project_id": PROJECT, "limits": Limits()}
    return OrganizationRow(id=identity, created_at=moment("2025-12-01") // 1000, **whose)


@pytest.fixture
async def plans(database: Database, redis: Redis) -> Subscriptions:
    made = Subscriptions(InvoiceBooks(database, redis))
    async with database.transaction() as session:
        session.add(organization(ACME))
    return made


async def test_a_month_without_any_use_is_billed_its_fee(plans: Subscriptions) -> None:
    await plans.make("team", "30")
    await plans.move("team", "2026-04-01")
    plans.go(moment("2026-04-20"))
    await plans.books.close()
    assert await plans.fees() == []
    await plans.close_month("2026-05-01")
    assert await plans.fees() == [("2026-04", "plan:team/plan_fee/2026-04-01/2026-04-30", 30.0)]
    [invoice] = await rows(plans.books.database, Invoice)
    assert (invoice.period, invoice.state, invoice.amount_due) == ("2026-04", "open", 30 * NANO_PER_DOLLAR)
    [line] = await rows(plans.books.database, InvoiceLine)
    assert (line.model, line.kind, line.quantity, line.amount) == ("plan:team", "plan_fee", 1, 30 * NANO_PER_DOLLAR)
    [hour] = await rows(plans.books.database, HourlyUsage)
    assert (hour.requests, hour.fees, hour.project, hour.amount) == (0, 1, "", 30 * NANO_PER_DOLLAR)
    [spent] = await rows(plans.books.database, Spending)
    assert (spent.scope, spent.month, spent.spent) == (ACME, "2026-04", 30 * NANO_PER_DOLLAR)
    await plans.agree()


async def test_another_plan_amid_the_month(plans: Subscriptions) -> None:
    """April has 30 days: 10 of a plan of 30 dollars, 20 of one of 90."""
    await plans.make("team", "30")
    await plans.make("pro", "90")
    await plans.move("team", "2026-04-01")
    await plans.books.use(1_000, at_ms=moment("2026-04-05"))
    await plans.move("pro", "2026-04-11")
    await plans.close_month("2026-05-01")
    assert await plans.fees() == [
        ("2026-04", "plan:team/plan_fee/2026-04-01/2026-04-10", 10.0),
        ("2026-04", "plan:pro/plan_fee/2026-04-11/2026-04-30", 60.0),
    ]
    assert (await plans.books.invoice("2026-04")).total == 70 * NANO_PER_DOLLAR + 1_000
    await plans.agree()


@SQLITE
async def test_another_fee_of_the_same_plan_and_then_none(plans: Subscriptions) -> None:
    """February 2028 has 29 days: 7 at 29 dollars, 8 at 58, 14 without a plan."""
    await plans.make("team", "29")
    await plans.move("team", "2028-02-01")
    await plans.restate("team", "2028-02-08", monthly_fee_dollars="58", price_multiplier="0.5")
    await plans.restate("team", "2028-02-10", price_multiplier="0.25")
    await plans.move(None, "2028-02-16")
    await plans.close_month("2028-03-01")
    assert await plans.fees() == [
        ("2028-02", "plan:team/plan_fee/2028-02-01/2028-02-07", 7.0),
        ("2028-02", "plan:team/plan_fee/2028-02-08/2028-02-15", 16.0),
    ]
    await plans.agree()


@SQLITE
async def test_hours_of_a_month_with_a_change_of_clocks(plans: Subscriptions) -> None:
    """March 2026 has 743 hours in New York, its first 14 days have 335."""
    async with plans.books.database.transaction() as session:
        session.add(
            TimeZoneChange(organization=ACME, since_period="2025-01", time_zone="America/New_York", changed_at_ms=0)
        )
    await plans.make("team", "743")
    await plans.move("team", "2026-03-15", zone="America/New_York")
    await plans.close_month("2026-04-02")
    assert await plans.fees() == [("2026-03", "plan:team/plan_fee/2026-03-15/2026-03-31", 743.0 - 335.0)]
    await plans.agree()


@SQLITE
async def test_a_fee_takes_nothing_from_the_limit_of_the_month_after(plans: Subscriptions) -> None:
    """April ends four hours later in New York than in UTC, in which limits are counted."""
    async with plans.books.database.transaction() as session:
        session.add(
            TimeZoneChange(organization=ACME, since_period="2025-01", time_zone="America/New_York", changed_at_ms=0)
        )
    await plans.make("team", "30", "50")
    await plans.move("team", "2026-04-01", zone="America/New_York")
    await plans.close_month("2026-05-02")
    [spent] = await rows(plans.books.database, Spending)
    assert (spent.month, spent.spent) == ("2026-04", 50 * NANO_PER_DOLLAR)
    assert [fee[1] for fee in await plans.fees()] == [
        "plan:team/plan_fee/2026-04-01/2026-04-30",
        "plan:team/minimum/2026-04-01/2026-04-30",
    ]
    await plans.agree()


@SQLITE
@pytest.mark.parametrize(("used", "lacking"), [(0, 15.0), (4 * NANO_PER_DOLLAR, 11.0), (15 * NANO_PER_DOLLAR, None)])
async def test_a_month_comes_to_its_minimum(plans: Subscriptions, used: int, lacking: float | None) -> None:
    """Of 40 dollars 20 are asked for the second half of April; the fee of 5 counts."""
    await plans.make("team", "10", "40")
    await plans.move("team", "2026-04-16")
    if used:
        await plans.books.use(used, at_ms=moment("2026-04-05"))
    await plans.close_month("2026-05-01")
    minimum = [] if lacking is None else [("2026-04", "plan:team/minimum/2026-04-16/2026-04-30", lacking)]
    assert await plans.fees() == [("2026-04", "plan:team/plan_fee/2026-04-16/2026-04-30", 5.0), *minimum]
    assert (await plans.books.invoice("2026-04")).total == max(20 * NANO_PER_DOLLAR, used + 5 * NANO_PER_DOLLAR)
    await plans.agree()


@SQLITE
async def test_what_was_used_late_counts_towards_the_month_that_bills_it(plans: Subscriptions) -> None:
    await plans.make("team", minimum="20")
    await plans.move("team", "2026-04-01")
    await plans.close_month("2026-05-01")
    await plans.books.use(3 * NANO_PER_DOLLAR, at_ms=moment("2026-04-30"))
    await plans.close_month("2026-06-01")
    assert await plans.fees() == [
        ("2026-04", "plan:team/minimum/2026-04-01/2026-04-30", 20.0),
        ("2026-05", "plan:team/minimum/2026-05-01/2026-05-31", 17.0),
    ]
    await plans.agree()


async def test_months_in_which_no_worker_ran_are_billed_each(plans: Subscriptions) -> None:
    await plans.make("team", "30")
    await plans.move("team", "2026-04-01")
    await plans.books.use(1_000, at_ms=moment("2026-06-02"))
    plans.go(moment("2026-07-02") + 1)
    await plans.books.worker.consumer.step()
    await plans.books.worker.fees.charge(ACME, "2026-06")
    assert await plans.fees() == []  # June waits for April and May
    for _ in range(3):
        await plans.books.close()
    assert [fee[0] for fee in await plans.fees()] == ["2026-04", "2026-05", "2026-06"]
    closed = [one for one in await rows(plans.books.database, BillingPeriod) if one.closed_at_ms is not None]
    assert sorted(one.period for one in closed) == ["2026-04", "2026-05", "2026-06"]
    await plans.agree()


async def test_one_whose_books_are_broken_holds_up_no_other(plans: Subscriptions) -> None:
    await plans.make("team", "30")
    async with plans.books.database.transaction() as session:
        session.add(organization(GLOBEX))
        session.add(TimeZoneChange(organization=ACME, since_period="2026-01", time_zone="No/Where", changed_at_ms=0))
    for whose in (ACME, GLOBEX):
        await plans.move("team", "2026-04-01", whose=whose)
    plans.go(moment("2026-04-20"))
    await plans.books.worker.leases.hold({})
    await plans.books.worker.fees.step()
    assert [one.organization for one in await rows(plans.books.database, BillingPeriod)] == [GLOBEX]
    assert [(one.organization, one.kind) for one in await rows(plans.books.database, Alarm)] == [
        (ACME, "periods_not_opened")
    ]


async def test_whoever_charges_again_charges_nothing_more(plans: Subscriptions) -> None:
    await plans.make("team", "30", "50")
    await plans.move("team", "2026-04-01")
    await plans.books.use(1_000, at_ms=moment("2026-04-05"))
    plans.go(moment("2026-05-03"))
    charger = plans.books.worker.fees
    await asyncio.gather(*(charger.charge(ACME, "2026-04") for _ in range(3)))
    await charger.charge(ACME, "2026-05")  # another one comes first
    await plans.books.close()
    await plans.books.close()
    assert sum(fee[2] for fee in await plans.fees()) == 50 - 1_000 / NANO_PER_DOLLAR
    assert (await plans.books.invoice("2026-04")).total == 50 * NANO_PER_DOLLAR
    await charger.charge(ACME, "2026-04")
    assert (await plans.books.invoice("2026-04")).total == 50 * NANO_PER_DOLLAR
    await plans.agree()


@SQLITE
async def test_nothing_is_asked_of_whoever_is_archived(plans: Subscriptions) -> None:
    await plans.make("team", "30")
    await plans.move("team", "2026-04-01")
    await plans.archive(True, "2026-04-16")
    await plans.close_month("2026-05-01")
    await plans.restate("team", "2026-05-10", monthly_fee_dollars="62")
    await plans.archive(False, "2026-07-17")
    await plans.close_month("2026-08-01")
    assert await plans.fees() == [
        ("2026-04", "plan:team/plan_fee/2026-04-01/2026-04-15", 15.0),
        ("2026-07", "plan:team/plan_fee/2026-07-17/2026-07-31", 30.0),
    ]
    await plans.agree()


@SQLITE
async def test_an_organization_that_is_new_pays_from_its_first_day(plans: Subscriptions) -> None:
    await plans.make("team", "31")
    plans.go(moment("2026-05-22"))
    await TenancyOperatorStore(plans.books.database, plans.books.clock).create_organization(
        slug="fresh", name="Fresh", limits=Limits(), actor=BOOTSTRAP, plan="team"
    )
    await plans.close_month("2026-06-01")
    assert await plans.fees() == [("2026-05", "plan:team/plan_fee/2026-05-22/2026-05-31", 10.0)]


@SQLITE
async def test_a_fee_is_taken_back_and_never_rated_anew(plans: Subscriptions) -> None:
    await plans.make("team", "30")
    await plans.move("team", "2026-04-01")
    await plans.books.spend("req_1", usage(10, 5), at_ms=moment("2026-04-05"))
    await plans.close_month("2026-05-01")
    anew = await plans.books.correct(CHEAP.version, period="2026-04")
    assert anew.charges == 1
    assert (await plans.books.correct(model=MODEL, period="2026-04")).charges == 1
    undone = await plans.books.correct(model="plan:team", period="2026-04")
    assert (undone.charges, undone.lowered) == (1, 30 * NANO_PER_DOLLAR)
    assert sum(fee[2] for fee in await plans.fees()) == 0
    await plans.agree()
