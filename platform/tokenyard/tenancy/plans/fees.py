"""What plans ask of organizations for a month, and since when: of the same rows as their prices (ADR 57)."""

from collections.abc import Sequence

import msgspec
from sqlalchemy import and_, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import FeeStep, NanoDollars
from tokenyard.tenancy.plans.prices import in_force, steps_of
from tokenyard.tenancy.tables import OrganizationPlanRow, OrganizationRow, PlanPriceRow, PlanRow

NO_PLAN = FeeStep(0, "")


async def fee_steps(session: AsyncSession, organization: OrganizationId) -> Sequence[FeeStep]:
    """Return what is asked from its beginning on, in the order of dates; nothing is while it is archived."""
    owner = await session.get(OrganizationRow, organization)
    if owner is None:
        return ()
    move, price = OrganizationPlanRow, PlanPriceRow
    query = (
        select(move.from_ms, price.from_ms, PlanRow.name, move.plan, price.monthly_fee, price.monthly_minimum)
        .outerjoin(price, and_(price.plan == move.plan, move.archived.is_(False)))
        .outerjoin(PlanRow, PlanRow.id == move.plan)
        .where(move.organization == organization)
        .order_by(move.from_ms, price.from_ms)
    )
    moves: dict[int, list[FeeStep]] = {}
    for moved_ms, from_ms, name, plan, fee, minimum in await session.execute(query):
        stated = moves.setdefault(moved_ms, [])
        if from_ms is not None:
            stated.append(FeeStep(from_ms, name or str(plan), NanoDollars(fee), NanoDollars(minimum)))
    begin_ms = owner.created_at * 1000
    steps = in_force(steps_of([*moves.items()], NO_PLAN), begin_ms)
    return [msgspec.structs.replace(step, from_ms=max(step.from_ms, begin_ms)) for step in steps]


async def organizations_with_fees(session: AsyncSession, *, after: str, limit: int) -> Sequence[OrganizationId]:
    """Return at most `limit` organizations behind `after` of which a plan ever asked a fee or a minimum."""
    move, price = OrganizationPlanRow, PlanPriceRow
    query = (
        select(move.organization)
        .join(price, price.plan == move.plan)
        .where(or_(price.monthly_fee > 0, price.monthly_minimum > 0), move.organization > after)
        .distinct()
        .order_by(move.organization)
        .limit(limit)
    )
    return [OrganizationId(owner) for owner in await session.scalars(query)]
