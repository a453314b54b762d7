"""What plans ask of tenants, worked out again: by the share of time, from what an operator said and when."""

from dataclasses import dataclass
from fractions import Fraction

from sqlalchemy import select

from support.money.model import Tenant
from support.money.stand import MoneyStand
from tokenyard.core.money import PRICE_LEAD_MS, to_dollars
from tokenyard.tenancy.api_keys import BOOTSTRAP
from tokenyard.tenancy.operator_store import PlanChoice, TenancyOperatorStore
from tokenyard.tenancy.plans.operator_store import PlanOperatorStore
from tokenyard.tenancy.plans.views import NewPlan
from tokenyard_billing.invoice_tables import BillingPeriod
from tokenyard_billing.tables import Charge


@dataclass(frozen=True)
class Subscription:
    """Said at `said_ms`; from `from_ms` on a month costs `fee`, and comes to `minimum` at least."""

    said_ms: int
    from_ms: int
    fee: int
    minimum: int


class Subscriptions:
    """Every change of a tenant's plan, and what follows from them."""

    def __init__(self, stand: MoneyStand) -> None:
        self._stand = stand
        self._said: dict[str, list[Subscription]] = {}

    async def subscribe(self, tenant: Tenant, fee: int, minimum: int) -> None:
        """Put the tenant on a plan of its own."""
        said = self._said.setdefault(tenant.organization, [])
        plan = f"plan-{len(said)}-{tenant.organization.removeprefix('org_').lower()}"
        asked = {"monthly_fee_dollars": to_dollars(fee), "monthly_minimum_dollars": to_dollars(minimum)}
        body = NewPlan.model_validate({"name": plan, **asked})
        database, clock = self._stand.database, self._stand.clock
        await PlanOperatorStore(database, clock).create(body.stated(), actor=BOOTSTRAP)
        now_ms = clock.now_ms()
        await TenancyOperatorStore(database, clock).change_organization(
            tenant.organization, name=None, limits=None, archived=None, actor=BOOTSTRAP, plan=PlanChoice(plan)
        )
        begin_ms = max([now_ms + PRICE_LEAD_MS, *(one.from_ms + 1 for one in said)])
        said.append(Subscription(now_ms, begin_ms, fee, minimum))

    async def charged(self, tenant: Tenant) -> int:
        """Return what was ever charged of fees, also where it was taken back since."""
        async with self._stand.database.reading() as session:
            own = (Charge.organization == tenant.organization) & (Charge.fees > 0)
            return sum(await session.scalars(select(Charge.amount).where(own)))

    async def check(self, tenant: Tenant) -> None:
        """Each period that closed has its fees, once, and came to its minimum."""
        own = tenant.organization
        async with self._stand.database.reading() as session:
            periods = (await session.scalars(select(BillingPeriod).where(BillingPeriod.organization == own))).all()
            rows = (await session.scalars(select(Charge).where(Charge.organization == own))).all()
        for period in periods:
            fees = [one for one in rows if one.period == period.period and one.fees > 0 and one.correction is None]
            if period.closed_at_ms is None:
                continue  # a worker that died before it closed it may have charged it
            decided_ms = min((one.charged_at_ms for one in fees), default=period.closed_at_ms)
            parts = self._parts(own, period, decided_ms)
            asked = sum((fee for fee, _ in parts), Fraction())
            assert abs(sum(one.amount for one in fees if one.kind == "plan_fee") - asked) < max(len(parts), 1)
            billed = sum(
                one.amount
                for one in rows
                if one.billed_in == period.period
                and one.credit_note is None
                and (one.correction is None or one.charged_at_ms < decided_ms)
            )
            assert billed > sum((minimum for _, minimum in parts), Fraction(-max(len(parts), 1)))

    def _parts(self, organization: str, period: BillingPeriod, decided_ms: int) -> list[tuple[Fraction, Fraction]]:
        """Return fee and minimum of each part, by what had been said when it was decided."""
        said = [one for one in self._said.get(organization, []) if one.said_ms <= decided_ms]
        ends = [*(one.from_ms for one in said[1:]), period.end_ms]
        found = []
        for one, end_ms in zip(said, ends, strict=False):
            time_ms = min(end_ms, period.end_ms) - max(one.from_ms, period.start_ms)
            if time_ms > 0:
                share = Fraction(time_ms, period.end_ms - period.start_ms)
                found.append((one.fee * share, one.minimum * share))
        return found
