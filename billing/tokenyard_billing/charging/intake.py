"""Turns usage events into rows: what was said, what is decided by it, and what still has to be waited for."""

import json
from collections.abc import Iterable, Sequence

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.money import NanoDollars
from tokenyard.core.usage import TokenUsage
from tokenyard.metering.events import TrainingFinished, UsageEvent
from tokenyard_billing.charging.batch import Batch, OpenReservation, Taken
from tokenyard_billing.charging.decision import Finding, Rule, afterthought, decide
from tokenyard_billing.charging.reports import Report, Witness, load_reports, report_of
from tokenyard_billing.pricing.checksums import RateCardSeals
from tokenyard_billing.pricing.prices import PriceList
from tokenyard_billing.tables import Charge, Reservation


class Received(msgspec.Struct, frozen=True):
    """An event and when it stood in its stream (Redis time)."""

    event: UsageEvent
    at_ms: int


class _Charged(msgspec.Struct, frozen=True):
    """A charge that stands."""

    rule: Rule
    attempt: str | None
    usage: TokenUsage


class Intake:
    """Takes batches in, each in one transaction of the caller's; keeps nothing between them but the card seals."""

    def __init__(self, prices: PriceList, seals: RateCardSeals, *, report_wait_ms: int) -> None:
        self._prices = prices
        self._seals = seals
        self._report_wait_ms = report_wait_ms

    async def take(self, session: AsyncSession, events: Sequence[Received], now_ms: int) -> Taken:
        """Take in events, in any order and however often delivered.

        Raises:
            UnknownPrice: an event names a price that no installed card has.
        """
        batch = Batch(self._prices, now_ms)
        said: dict[str, list[Report]] = {}
        trainings: dict[str, TrainingFinished] = {}
        for received in events:
            if isinstance(received.event, TrainingFinished):
                trainings.setdefault(received.event.job, received.event)
            else:
                report = report_of(received.event, received.at_ms)
                said.setdefault(report.request, []).append(report)
        charged = await _load_charges(session, [*said, *trainings])
        earlier = await load_reports(session, said) if said else {}
        for request, reports in said.items():
            self._hear(batch, request, reports, earlier.get(request, []), charged.get(request))
        await _finish(session, batch, trainings, charged)
        return await batch.write(session, self._seals)

    async def take_overdue(self, session: AsyncSession, requests: Sequence[str], now_ms: int) -> Taken:
        """Decide requests whose missing report was waited for long enough, with what there is."""
        batch = Batch(self._prices, now_ms)
        charged = await _load_charges(session, requests)
        for request, reports in (await load_reports(session, requests)).items():
            decision = decide(reports, waited=True)
            if decision and request not in charged:
                batch.charge(request, decision)
                _settle(batch, request, reports)
        for request in requests:
            batch.close(request)
        return await batch.write(session, self._seals)

    def keep(self, taken: Taken) -> None:
        """Remember what `taken` sealed; call it when the transaction is committed."""
        self._seals.keep(taken.sealed)

    def _hear(
        self, batch: Batch, request: str, reports: list[Report], earlier: list[Report], charged: _Charged | None
    ) -> None:
        heard = {(report.attempt, report.witness): report for report in earlier}
        fresh: list[Report] = []
        for report in reports:
            first = heard.setdefault((report.attempt, report.witness), report)
            if first is report:
                fresh.append(report)
                batch.report(report)
            elif (first.usage, first.outcome) != (report.usage, report.outcome):
                batch.find([_contradiction(first, report)], report.claims.organization)
        if charged:
            for report in fresh:
                thought = afterthought(charged.rule, charged.attempt, charged.usage, report)
                if thought.waste:
                    batch.waste(report)
                batch.find(thought.findings, report.claims.organization)
        elif decision := decide(heard.values(), waited=False):
            batch.charge(request, decision)
            if earlier:
                batch.close(request)
        else:
            self._wait(batch, fresh)
            return
        _settle(batch, request, reports)

    def _wait(self, batch: Batch, fresh: list[Report]) -> None:
        if not fresh:
            return
        decisive = [report.received_at_ms for report in fresh if report.witness is not Witness.REPLICA]
        batch.wait(fresh[0], max(decisive) + self._report_wait_ms if decisive else None)


def _settle(batch: Batch, request: str, reports: Iterable[Report]) -> None:
    for report in reports:
        batch.settled(report.claims.organization, report.claims.budgets, request)


def _contradiction(first: Report, second: Report) -> Finding:
    message = f"the {first.witness} reported {first.outcome} {first.usage}, then {second.outcome} {second.usage}"
    return Finding("contradiction", first.attempt, message)


async def _finish(
    session: AsyncSession, batch: Batch, trainings: dict[str, TrainingFinished], charged: dict[str, _Charged]
) -> None:
    if not trainings:
        return
    query = select(Reservation).where(Reservation.job.in_(list(trainings)), Reservation.state.in_(("posted", "open")))
    reservations = {row.job: _reservation(row) for row in await session.scalars(query)}
    for job, event in trainings.items():
        if job in charged:
            batch.settled(event.organization, event.budgets, job)
        else:
            batch.charge_training(event, reservations.get(job))


def _reservation(row: Reservation) -> OpenReservation:
    scopes = (row.organization, row.project, row.key)
    return OpenReservation(NanoDollars(row.amount), row.reserved_at_ms, scopes, tuple(json.loads(row.budgets)))


async def _load_charges(session: AsyncSession, keys: Sequence[str]) -> dict[str, _Charged]:
    query = select(
        Charge.charge_key,
        Charge.rule,
        Charge.attempt,
        Charge.prompt_tokens,
        Charge.completion_tokens,
        Charge.cached_tokens,
    ).where(Charge.charge_key.in_(list(keys)))
    return {
        key: _Charged(Rule(rule), attempt, TokenUsage(*tokens))
        for key, rule, attempt, *tokens in await session.execute(query)
    }
