"""What is to be charged of a period that ends, of all that plans asked for it."""

from collections.abc import Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import msgspec
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import FeeStep, NanoDollars
from tokenyard_billing.charging.charges import billed_by
from tokenyard_billing.charging.fee import PlanFee, fee_key
from tokenyard_billing.periods import TIME_ZONE, BillingCalendar, period_end_ms
from tokenyard_billing.plan_fees.proration import PlanPart, plan_parts
from tokenyard_billing.pricing.fee_prices import MINIMUM, PLAN_FEE, FeeKind, FeePrice
from tokenyard_billing.tables import Charge


async def fees_to_charge(
    session: AsyncSession,
    organization: OrganizationId,
    period: str,
    steps: Sequence[FeeStep],
    calendar: BillingCalendar,
) -> Sequence[PlanFee]:
    """Return the fees of `period` and what it lacks of its minimum, or nothing where that was charged before.

    All else that the period bills is charged already; late usage that it bills counts towards its minimum.
    """
    parts = plan_parts(steps, calendar.start_ms(period), calendar.end_ms(period))
    if not parts or await _are_charged(session, organization, period):
        return ()
    billed = _Billed(organization, period, calendar.time_zone(period))
    asking = [part for part in parts if part.fee]
    fees = [billed.fee(number, PLAN_FEE, [part], part.fee) for number, part in enumerate(asking, start=1)]
    lacking = sum(part.minimum for part in parts) - sum(part.fee for part in parts)
    lacking -= await _charged(session, organization, period)
    if lacking > 0:
        fees.append(billed.fee(1, MINIMUM, [part for part in parts if part.minimum], NanoDollars(lacking)))
    return fees


class _Billed(msgspec.Struct, frozen=True):
    """The period that fees are of."""

    organization: OrganizationId
    period: str
    time_zone: str

    def fee(self, number: int, kind: FeeKind, parts: Sequence[PlanPart], amount: NanoDollars) -> PlanFee:
        """Return a fee of all `parts`; it goes by the name of the last one's plan."""
        last_ms = parts[-1].until_ms - 1
        first, last = self._day(parts[0].from_ms), self._day(last_ms)
        stated = FeePrice(plan=parts[-1].plan, kind=kind, first=first, last=last, amount=amount)
        # A period may end in the next month of limits, which begins with nothing spent of them.
        dated_ms = min(last_ms, period_end_ms(self.period, TIME_ZONE) - 1)
        return PlanFee(self.organization, self.period, number, stated, dated_ms)

    def _day(self, at_ms: int) -> str:
        return f"{datetime.fromtimestamp(at_ms / 1000, UTC).astimezone(ZoneInfo(self.time_zone)):%Y-%m-%d}"


async def _are_charged(session: AsyncSession, organization: OrganizationId, period: str) -> bool:
    """Tell whether this was done: all of a period's fees are charged in one transaction."""
    first = [fee_key(organization, kind, period, 1) for kind in (PLAN_FEE, MINIMUM)]
    return await session.scalar(select(Charge.charge_key).where(Charge.charge_key.in_(first)).limit(1)) is not None


async def _charged(session: AsyncSession, organization: OrganizationId, period: str) -> int:
    return int(await session.scalar(select(func.sum(Charge.amount)).where(billed_by(organization, period))) or 0)
