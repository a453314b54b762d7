"""All that one billing transaction writes, and the one place that writes it."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import msgspec
from sqlalchemy import delete, func, update
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.budgets import monthly, wallet
from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import NanoDollars, Price, PriceStep, hosting_cost, inference_cost, training_cost
from tokenyard.core.redis_keys import bucket_of
from tokenyard.core.usage import MeterClaims
from tokenyard.metering.events import AdapterHosted, StandaloneUse, StorageHeld, TrainingFinished
from tokenyard.storage import bulk
from tokenyard.storage.transactional_outbox import OutboxMessage
from tokenyard_billing.charging.charges import NewCharge, write_charges
from tokenyard_billing.charging.decision import Decision, Finding, Rule
from tokenyard_billing.charging.fee import PlanFee
from tokenyard_billing.charging.rating import Rating, rate, unknown_price
from tokenyard_billing.charging.reports import Report, insert_reports
from tokenyard_billing.ledger import journal
from tokenyard_billing.ledger.projections import SpendingChanges
from tokenyard_billing.pricing.prices import PriceList, UnknownPrice
from tokenyard_billing.tables import Alarm, OpenRequest, Reservation, Waste
from tokenyard_billing.wallets.changes import BudgetChanges, write_changes

Use = TypeVar("Use", MeterClaims, TrainingFinished, AdapterHosted, StorageHeld)


class Taken(msgspec.Struct):
    """What a transaction did: `messages` are to be carried now; `charges` and `alarms` count by rule and by kind.

    `waiting`: the places, in what was to be taken, of events whose price is not known yet; nothing of them was written.
    """

    waiting: set[int] = msgspec.field(default_factory=set)
    messages: list[OutboxMessage] = msgspec.field(default_factory=list)
    charges: Counter[str] = msgspec.field(default_factory=Counter)
    alarms: Counter[str] = msgspec.field(default_factory=Counter)


class OpenReservation(msgspec.Struct, frozen=True):
    """What was set aside for a job."""

    amount: NanoDollars
    reserved_at_ms: int
    scopes: tuple[str, str, str]
    budgets: tuple[str, ...]


class LedgerBatch:
    """Collects what is to be written; `write` writes it all."""

    def __init__(self, prices: PriceList, steps: Mapping[OrganizationId, Sequence[PriceStep]], now_ms: int) -> None:
        """`steps` are those of every organization of which something is to be rated; fees are not."""
        self.taken = Taken()
        self._prices = prices
        self._steps = steps
        self._now_ms = now_ms
        self._reports: list[Report] = []
        self._charges: list[NewCharge] = []
        self._waste: list[dict[str, object]] = []
        self._alarms: dict[tuple[str, str], tuple[OrganizationId | None, Finding]] = {}
        self._opened: list[tuple[Report, int | None]] = []
        self._closed: list[str] = []
        self._finished_jobs: list[str] = []
        self._spending = SpendingChanges()
        self._budgets: dict[OrganizationId, BudgetChanges] = {}
        self._postings: list[tuple[journal.Posting, Sequence[NewCharge]]] = []

    def report(self, report: Report) -> None:
        """Keep what a witness said."""
        self._reports.append(report)

    def settled(self, organization: OrganizationId, budgets: Iterable[str], charge_key: str) -> None:
        """Note that `charge_key` needs no pending amount on the wallet and `budgets` any more."""
        self._changes(organization).add(dict.fromkeys((wallet(organization), *budgets)), charge_key)

    def decided(self, organization: OrganizationId, request: str, tokens: int) -> None:
        """Note what a request really used that was settled, or whose hold expired, without anyone knowing it."""
        self._changes(organization).decided[request] = tokens

    def wait(self, report: Report, deadline_ms: int | None) -> None:
        """Note that the report's request cannot be decided yet, or only after `deadline_ms`."""
        self._opened.append((report, deadline_ms))

    def close(self, request: str) -> None:
        """Note that nothing is waited for any more."""
        self._closed.append(request)

    def can_rate(self, use: MeterClaims | StandaloneUse) -> bool:
        """Tell whether the price of `use` is known; raise an alarm where it is not."""
        try:
            self._rating(use)
        except UnknownPrice as error:
            self.alarm(None, [unknown_price(use, error)])
            return False
        return True

    def charge(self, request: str, decision: Decision) -> None:
        claims, price = self._rated(decision.claims)
        amount = inference_cost(price, decision.usage)
        charge = NewCharge(request, claims, decision.rule, amount, claims.budgets, decision.attempt, decision.usage)
        self._add(charge)
        self.alarm(claims.organization, decision.findings)
        for report in decision.waste:
            self.waste(report)

    def charge_training(self, event: TrainingFinished, reservation: OpenReservation | None) -> None:
        """Charge a finished job from its reservation, or from the wallet where there is none."""
        event, price = self._rated(event)
        amount = training_cost(price, event.trained_tokens)
        budgets = tuple(dict.fromkeys((*event.budgets, *(reservation.budgets if reservation else ()))))
        charge = NewCharge(event.job, event, Rule.TRAINING, amount, budgets)
        self._add(charge)
        reserved = reservation.amount if reservation else NanoDollars(0)
        posting = journal.reservation_closed(event.organization, reserved=reserved, cost=amount, reference=event.job)
        if posting:
            self._postings.append((posting, [charge]))
        if reservation:
            self._spending.add(reservation.scopes, reservation.reserved_at_ms, reserved=-reserved)
            months = (monthly(scope, reservation.reserved_at_ms) for scope in reservation.scopes)
            self._changes(event.organization).add(months)
            self._finished_jobs.append(event.job)
        self.settled(event.organization, budgets, event.job)

    def charge_hosting(self, event: AdapterHosted) -> None:
        event, price = self._rated(event)
        amount = hosting_cost(price, pinned=event.pinned)
        self._add(NewCharge(event.charge_key, event, Rule.HOSTING, amount, ()))
        self.settled(event.organization, (), event.charge_key)

    def charge_storage(self, event: StorageHeld) -> None:
        event, price = self._rated(event)
        self._add(NewCharge(event.charge_key, event, Rule.STORAGE, price.storage, ()))
        self.settled(event.organization, (), event.charge_key)

    def charge_fee(self, fee: PlanFee) -> None:
        self._add(NewCharge(fee.charge_key, fee, Rule(fee.kind), fee.stated.amount, ()))
        self.settled(fee.organization, (), fee.charge_key)

    def waste(self, report: Report) -> None:
        """Keep a replica's work that nobody pays."""
        claims, usage = report.claims, report.usage
        self._waste.append(
            {
                "attempt": report.attempt,
                "request": report.request,
                "organization": claims.organization,
                "model": claims.model,
                **msgspec.structs.asdict(usage),
                "amount": inference_cost(self._rating(claims).price, usage),
                "at_ms": report.at_ms,
            }
        )

    def alarm(self, organization: OrganizationId | None, findings: Iterable[Finding]) -> None:
        """Raise an alarm for each finding."""
        for finding in findings:
            if self._alarms.setdefault((finding.kind, finding.subject), (organization, finding))[1] is finding:
                self.taken.alarms[finding.kind] += 1

    async def write(self, session: AsyncSession) -> Taken:
        """Write everything in the session's transaction."""
        await self._post(session)
        await insert_reports(session, self._reports)
        await write_charges(session, self._charges, self._now_ms)
        await bulk.insert_new(session, Waste, self._waste)
        await raise_alarms(session, self._alarms.values(), self._now_ms)
        await self._write_open_requests(session)
        if self._finished_jobs:
            done = {"state": "charged", "closed_at_ms": self._now_ms}
            await session.execute(update(Reservation).where(Reservation.job.in_(self._finished_jobs)).values(done))
        await self._spending.write(session)
        self.taken.messages = await write_changes(session, list(self._budgets.values()), self._now_ms)
        return self.taken

    async def _post(self, session: AsyncSession) -> None:
        used: dict[OrganizationId, list[NewCharge]] = {}
        for charge in self._charges:
            if charge.kind != "training" and charge.amount:
                used.setdefault(charge.source.organization, []).append(charge)
        for organization, charges in sorted(used.items()):
            amount = NanoDollars(sum(charge.amount for charge in charges))
            reference = f"{charges[0].key} and {len(charges) - 1} more"
            self._postings.append((journal.usage_charged(organization, amount, reference=reference), charges))
        identities = await journal.post(session, [posting for posting, _ in self._postings], self._now_ms)
        for identity, (_, posted) in zip(identities, self._postings, strict=True):
            for charge in posted:
                charge.transaction = identity

    async def _write_open_requests(self, session: AsyncSession) -> None:
        if self._closed:
            await session.execute(delete(OpenRequest).where(OpenRequest.request.in_(self._closed)))
        if self._opened:
            rows = [
                {
                    "request": report.request,
                    "organization": report.claims.organization,
                    "bucket": bucket_of(report.claims.organization),
                    "looked_at_ms": report.received_at_ms,
                    "deadline_ms": deadline_ms,
                    "admitted_at_ms": report.claims.admitted_at_ms,
                }
                for report, deadline_ms in self._opened
            ]
            statement = bulk.upsert(session, OpenRequest)
            deadline = func.coalesce(statement.excluded.deadline_ms, OpenRequest.deadline_ms)
            statement = statement.on_conflict_do_update(index_elements=["request"], set_={"deadline_ms": deadline})
            await (await session.connection()).execute(statement, rows)

    def _add(self, charge: NewCharge) -> None:
        self.taken.charges[charge.rule.value] += 1
        self._charges.append(charge)
        at_ms = charge.source.admitted_at_ms
        self._spending.add(charge.scopes, at_ms, spent=charge.amount)
        # Of every scope, not only of those it was held on: a limit may be new since the request came in.
        self._changes(charge.source.organization).add(monthly(scope, at_ms) for scope in charge.scopes if scope)

    def _changes(self, organization: OrganizationId) -> BudgetChanges:
        return self._budgets.setdefault(organization, BudgetChanges(organization))

    def _rated(self, use: Use) -> tuple[Use, Price]:
        """Return `use` with the price that it is charged by, whatever was claimed."""
        rating = self._rating(use)
        self.alarm(use.organization, rating.findings)
        return msgspec.structs.replace(use, price=rating.price.id), rating.price

    def _rating(self, use: MeterClaims | StandaloneUse) -> Rating:
        return rate(self._prices, self._steps[use.organization], use)


async def raise_alarms(
    session: AsyncSession, alarms: Iterable[tuple[OrganizationId | None, Finding]], at_ms: int
) -> None:
    """Write alarms that are not there yet: one for a kind and subject."""
    rows = [
        {"organization": organization, "at_ms": at_ms, **msgspec.structs.asdict(finding)}
        for organization, finding in alarms
    ]
    await bulk.insert_new(session, Alarm, rows)
