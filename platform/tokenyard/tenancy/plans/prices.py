"""By what plans multiply prices, what they ask for a month, and since when.

Rows are only added, each `PRICE_LEAD_MS` before it is in force.
The ledger asks for the same rows that a cached `Principal` was made of. A principal is never as old as the lead time,
so the two cannot disagree (ADR 24).
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TypeVar

import msgspec
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import LIST_PRICE, PRICE_LEAD_MS, FeeStep, PriceStep, multiplier_from
from tokenyard.tenancy.tables import OrganizationPlanRow, OrganizationRow, PlanPriceRow, PlanRow

StepT = TypeVar("StepT", PriceStep, FeeStep)
Move = tuple[int, Sequence[StepT]]
"""Since when (unix ms) an organization is on a plan, and all steps that the plan ever took."""


class TierTerms(msgspec.Struct, frozen=True):
    """What a plan grants to requests of a service tier; its price is the plan's where no multiplier is stated."""

    weight: int
    price_multiplier: str | None = None


def tier_terms(plan: PlanRow | None) -> Mapping[str, TierTerms]:
    return {} if plan is None else msgspec.convert(plan.service_tiers, dict[str, TierTerms])


def publish_new_plan(session: AsyncSession, plan: PlanRow, now_ms: int) -> None:
    """Write the prices of a plan that nobody was ever on: they hold from the beginning."""
    plan.prices_from_ms = 0
    session.add(_price_row(plan, from_ms=0, now_ms=now_ms))


async def publish_prices(session: AsyncSession, plan: PlanRow, now_ms: int) -> int | None:
    """Write what `plan`, which is locked, states now, unless that is published; return when it comes into force."""
    of_plan = select(PlanPriceRow).where(PlanPriceRow.plan == plan.id).order_by(PlanPriceRow.from_ms.desc()).limit(1)
    last = await session.scalar(of_plan)
    row = _price_row(plan, from_ms=_start(now_ms, None if last is None else last.from_ms), now_ms=now_ms)
    stated = ("1", {}, 0, 0) if last is None else _terms(last)
    if _terms(row) == stated:
        return None
    session.add(row)
    return row.from_ms


def publish_first_plan(session: AsyncSession, organization: OrganizationRow, now_ms: int) -> None:
    """Write by which plan the prices of a new organization go: nothing that it used was rated before."""
    session.add(_move_row(organization, from_ms=0, now_ms=now_ms))


async def publish_move(session: AsyncSession, organization: OrganizationRow, now_ms: int) -> int:
    """Write that `organization`, which is locked, has another plan, or was archived or brought back.

    Return from when on that holds for its prices and fees.
    """
    of_one = OrganizationPlanRow.organization == organization.id
    last = await session.scalar(select(func.max(OrganizationPlanRow.from_ms)).where(of_one))
    row = _move_row(organization, from_ms=_start(now_ms, last), now_ms=now_ms)
    session.add(row)
    return row.from_ms


async def price_steps(
    session: AsyncSession, organizations: Collection[OrganizationId]
) -> dict[OrganizationId, Sequence[PriceStep]]:
    """Return for each of `organizations` by what its prices were, are and will be multiplied, in the order of dates."""
    move, price = OrganizationPlanRow, PlanPriceRow
    query = (
        select(move.organization, move.from_ms, price.from_ms, price.multiplier, price.tiers)
        .outerjoin(price, price.plan == move.plan)
        .where(move.organization.in_(organizations))
        .order_by(move.organization, move.from_ms, price.from_ms)
    )
    moves: dict[str, dict[int, list[PriceStep]]] = {}
    for organization, moved_ms, from_ms, multiplier, tiers in await session.execute(query):
        prices = moves.setdefault(organization, {}).setdefault(moved_ms, [])
        if from_ms is not None:  # there is a plan, and it has stated something
            own = {tier: multiplier_from(text) for tier, text in tiers.items()}
            prices.append(PriceStep(from_ms, multiplier_from(multiplier), own))
    none = PriceStep(0, LIST_PRICE)
    return {organization: steps_of([*moves.get(organization, {}).items()], none) for organization in organizations}


def steps_of(moves: Sequence[Move[StepT]], none: StepT) -> tuple[StepT, ...]:
    """Put the steps together that hold for an organization; both kinds are in the order of their dates.

    `none` holds without a plan.
    """
    ends = [*(from_ms for from_ms, _ in moves[1:]), math.inf]
    return tuple(step for move, end in zip(moves, ends, strict=False) for step in _until(end, *move, none))


def _until(end_ms: float, from_ms: int, stated: Sequence[StepT], none: StepT) -> Iterator[StepT]:
    earlier = [step for step in stated if step.from_ms <= from_ms]
    yield msgspec.structs.replace(earlier[-1] if earlier else none, from_ms=from_ms)
    yield from (step for step in stated if from_ms < step.from_ms < end_ms)


def in_force(steps: Sequence[StepT], now_ms: int) -> tuple[StepT, ...]:
    """Return the step that is in force and those to come."""
    past = sum(step.from_ms <= now_ms for step in steps)
    return tuple(steps[max(0, past - 1) :])


def _start(now_ms: int, last_ms: int | None) -> int:
    return max(now_ms + PRICE_LEAD_MS, 0 if last_ms is None else last_ms + 1)


def _price_row(plan: PlanRow, *, from_ms: int, now_ms: int) -> PlanPriceRow:
    stated = {tier: terms.price_multiplier for tier, terms in tier_terms(plan).items()}
    return PlanPriceRow(
        plan=plan.id,
        from_ms=from_ms,
        multiplier=plan.price_multiplier,
        tiers={tier: multiplier for tier, multiplier in stated.items() if multiplier is not None},
        monthly_fee=plan.monthly_fee,
        monthly_minimum=plan.monthly_minimum,
        published_at_ms=now_ms,
    )


def _terms(row: PlanPriceRow) -> tuple[str, Mapping[str, object], int, int]:
    return row.multiplier, row.tiers, row.monthly_fee, row.monthly_minimum


def _move_row(organization: OrganizationRow, *, from_ms: int, now_ms: int) -> OrganizationPlanRow:
    return OrganizationPlanRow(
        organization=organization.id,
        from_ms=from_ms,
        plan=organization.plan_id,
        archived=organization.archived_at is not None,
        published_at_ms=now_ms,
    )
