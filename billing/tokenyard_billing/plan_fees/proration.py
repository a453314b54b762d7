"""Splits a period into the parts that plans held, and says what each part costs. Pure, without I/O."""

from collections.abc import Iterator, Sequence

import msgspec

from tokenyard.core.money import FeeStep, NanoDollars
from tokenyard_billing.periods import BillingCalendar, later


class PlanPart(msgspec.Struct, frozen=True):
    """From `from_ms` until before `until_ms` the period was `plan`'s, with a fee and a minimum for that time."""

    plan: str
    from_ms: int
    until_ms: int
    fee: NanoDollars
    minimum: NanoDollars


def plan_parts(steps: Sequence[FeeStep], start_ms: int, end_ms: int) -> list[PlanPart]:
    """Return the parts of a period for which something is asked; `steps` are in the order of their dates.

    The parts of one and the same monthly amount come to exactly that amount: each is what the period asked until its
    end, less what it asked until its beginning, both rounded down to the nano-dollar.
    """

    def part_of(amount: NanoDollars, from_ms: int, until_ms: int) -> NanoDollars:
        length_ms = end_ms - start_ms
        until, before = ((amount * (at_ms - start_ms)) // length_ms for at_ms in (until_ms, from_ms))
        return NanoDollars(until - before)

    joined = _joined(steps)
    parts: list[PlanPart] = []
    ends_ms = [*(step.from_ms for step in joined[1:]), end_ms]
    for step, until_ms in zip(joined, (min(at_ms, end_ms) for at_ms in ends_ms), strict=False):
        from_ms = max(step.from_ms, start_ms)
        if from_ms < until_ms and (step.fee or step.minimum):
            amounts = (part_of(amount, from_ms, until_ms) for amount in (step.fee, step.minimum))
            parts.append(PlanPart(step.plan, from_ms, until_ms, *amounts))
    return parts


def asking_periods(steps: Sequence[FeeStep], calendar: BillingCalendar, now_ms: int) -> Iterator[str]:
    """Yield the periods, the oldest first, that are not closed, have begun, and for which something is asked."""
    since_ms = next((step.from_ms for step in steps if step.fee or step.minimum), None)
    if since_ms is None:
        return
    period, last = max(calendar.period_of(since_ms), calendar.first_open), calendar.period_of(now_ms)
    while period <= last:
        if plan_parts(steps, calendar.start_ms(period), min(calendar.end_ms(period), now_ms)):
            yield period
        period = later(period)


def _joined(steps: Sequence[FeeStep]) -> list[FeeStep]:
    """Leave out the steps that ask what the one before asks: their plan changed something else."""
    found: list[FeeStep] = []
    for step in steps:
        if not found or msgspec.structs.replace(step, from_ms=found[-1].from_ms) != found[-1]:
            found.append(step)
    return found
