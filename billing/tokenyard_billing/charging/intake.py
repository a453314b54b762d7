"""Turns usage events into rows: what was said, what is decided by it, and what still has to be waited for."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.ids import OrganizationId, request_of
from tokenyard.core.money import NanoDollars
from tokenyard.core.usage import TokenUsage
from tokenyard.metering.events import (
    Outcome,
    StandaloneUse,
    StorageHeld,
    TrainingFinished,
    UsageEvent,
    organization_of,
)
from tokenyard_billing.charging.batch import LedgerBatch, OpenReservation, Taken
from tokenyard_billing.charging.decision import Charged, Finding, Rule, decide, judge_late
from tokenyard_billing.charging.rating import used_by
from tokenyard_billing.charging.reports import Report, ReportWitness, load_reports, report_of
from tokenyard_billing.ports import PlanPrices
from tokenyard_billing.pricing.price_book import read_new_cards
from tokenyard_billing.pricing.prices import PriceList
from tokenyard_billing.tables import Charge, Reservation

PRICE_PAUSE_MS = 30_000  # then a request that nobody can rate is looked at again


class Received(msgspec.Struct, frozen=True):
    """An event and when it stood in its stream (Redis time)."""

    event: UsageEvent
    at_ms: int


class Intake:
    """Takes batches in, each in one transaction of the caller's; keeps nothing between them."""

    def __init__(self, prices: PriceList, plans: PlanPrices, *, report_wait_ms: int) -> None:
        self._prices = prices
        self._plans = plans
        self._report_wait_ms = report_wait_ms

    async def take(self, session: AsyncSession, events: Sequence[Received], now_ms: int) -> Taken:
        """Take in events, in any order and however often delivered; those whose price is not known yet wait.

        Every card and multiplier that SQL has is known here, because it is looked for in the same transaction.

        Raises:
            InvalidRateCard: a rate card was changed in the database.
        """
        of_requests = [one.event for one in events if not isinstance(one.event, StandaloneUse)]
        requests = {request_of(event.claims.attempt) for event in of_requests}
        earlier = await load_reports(session, requests) if requests else {}
        owners = {organization_of(received.event) for received in events} | _owners(earlier)
        batch = await self._batch(session, owners, now_ms)
        said: dict[str, list[Report]] = {}
        standalone: dict[str, StandaloneUse] = {}
        for place, received in enumerate(events):
            if not batch.can_rate(used_by(received.event)):
                batch.taken.waiting.add(place)
            elif isinstance(received.event, StandaloneUse):
                standalone.setdefault(received.event.charge_key, received.event)
            else:
                report = report_of(received.event, received.at_ms)
                said.setdefault(report.request, []).append(report)
        charged = await _load_charges(session, [*said, *standalone])
        for request, reports in said.items():
            self._take_reports(batch, request, reports, earlier.get(request, []), charged.get(request))
        if standalone:
            await _charge_standalone(session, batch, standalone, charged)
        return await batch.write(session)

    async def take_overdue(self, session: AsyncSession, requests: Sequence[str], now_ms: int) -> Taken:
        """Decide requests whose missing report was waited for long enough, with what there is.

        One whose price is not known yet waits on, and the others are decided.
        """
        charged = await _load_charges(session, requests)
        said = await load_reports(session, requests)
        batch = await self._batch(session, _owners(said), now_ms)
        for request in requests:
            reports = said.get(request, [])
            decision = decide(reports, waited=True)
            if not decision or request in charged:
                batch.close(request)
            elif _can_rate(batch, reports):
                batch.charge(request, decision)
                batch.close(request)
                _settle(batch, request, reports, decision.usage)
            else:
                batch.wait(reports[0], now_ms + PRICE_PAUSE_MS)
        return await batch.write(session)

    async def _batch(self, session: AsyncSession, owners: Collection[OrganizationId], now_ms: int) -> LedgerBatch:
        """Return an empty batch that can rate what `owners` used, by all that SQL knows."""
        await read_new_cards(session, self._prices)
        return LedgerBatch(self._prices, await self._plans.price_steps(session, owners), now_ms)

    def _take_reports(
        self, batch: LedgerBatch, request: str, reports: list[Report], earlier: list[Report], charged: Charged | None
    ) -> None:
        known = {(report.attempt, report.witness): report for report in earlier}
        fresh: list[Report] = []
        for report in reports:
            first = known.setdefault((report.attempt, report.witness), report)
            if first is report:
                fresh.append(report)
                batch.report(report)
            elif (first.usage, first.outcome) != (report.usage, report.outcome):
                batch.alarm(report.claims.organization, [_contradiction(first, report)])
        usage: TokenUsage
        if charged:
            usage = charged.usage
            for report in fresh:
                late = judge_late(charged, report)
                if late.waste:
                    batch.waste(report)
                batch.alarm(report.claims.organization, late.findings)
        elif (decision := decide(known.values(), waited=False)) and _can_rate(batch, earlier):
            usage = decision.usage
            batch.charge(request, decision)
            if earlier:
                batch.close(request)
        else:
            if fresh:
                batch.wait(fresh[0], self._deadline_ms(fresh))
            return
        _settle(batch, request, known.values(), usage)

    def _deadline_ms(self, fresh: Iterable[Report]) -> int | None:
        decisive = [report.received_at_ms for report in fresh if report.witness is not ReportWitness.REPLICA]
        return max(decisive) + self._report_wait_ms if decisive else None


def _owners(said: Mapping[str, Iterable[Report]]) -> set[OrganizationId]:
    return {report.claims.organization for reports in said.values() for report in reports}


def _can_rate(batch: LedgerBatch, reports: Iterable[Report]) -> bool:
    return all(batch.can_rate(report.claims) for report in reports)


def _settle(batch: LedgerBatch, request: str, reports: Collection[Report], usage: TokenUsage) -> None:
    for organization, budgets in {(report.claims.organization, report.claims.budgets) for report in reports}:
        batch.settled(organization, budgets, request)
    for report in reports:
        if report.witness is ReportWitness.HOLD or report.outcome == Outcome.CLIENT_LEFT:
            batch.decided(report.claims.organization, request, usage.total_tokens)


def _contradiction(first: Report, second: Report) -> Finding:
    message = f"the {first.witness} reported {first.outcome} {first.usage}, then {second.outcome} {second.usage}"
    return Finding("contradiction", first.attempt, message)


async def _charge_standalone(
    session: AsyncSession, batch: LedgerBatch, uses: Mapping[str, StandaloneUse], charged: Mapping[str, Charged]
) -> None:
    trainings: dict[str, TrainingFinished] = {}
    for charge_key, use in uses.items():
        if isinstance(use, TrainingFinished):
            trainings[charge_key] = use
        elif charge_key in charged:
            continue
        elif isinstance(use, StorageHeld):
            batch.charge_storage(use)
        else:
            batch.charge_hosting(use)
    if trainings:
        await _finish_trainings(session, batch, trainings, charged)


async def _finish_trainings(
    session: AsyncSession, batch: LedgerBatch, trainings: Mapping[str, TrainingFinished], charged: Mapping[str, Charged]
) -> None:
    # Locked, so that a reservation is opened either before this charge, which closes it, or never; and in order, as
    # those of several jobs are opened together.
    query = select(Reservation).where(Reservation.job.in_(list(trainings))).order_by(Reservation.job).with_for_update()
    reservations = {row.job: _reservation(row) for row in await session.scalars(query) if row.state == "open"}
    for job, event in trainings.items():
        if job in charged:
            batch.settled(event.organization, event.budgets, job)
        else:
            batch.charge_training(event, reservations.get(job))


def _reservation(row: Reservation) -> OpenReservation:
    scopes = (row.organization, row.project, row.key)
    return OpenReservation(NanoDollars(row.amount), row.reserved_at_ms, scopes, tuple(json.loads(row.budgets)))


async def _load_charges(session: AsyncSession, keys: Sequence[str]) -> dict[str, Charged]:
    tokens = (Charge.prompt_tokens, Charge.completion_tokens, Charge.cached_tokens)
    query = select(Charge.charge_key, Charge.rule, Charge.attempt, *tokens).where(Charge.charge_key.in_(list(keys)))
    return {
        key: Charged(Rule(rule), attempt, TokenUsage(*counted))
        for key, rule, attempt, *counted in await session.execute(query)
    }
