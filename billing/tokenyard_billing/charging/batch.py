"""The rows of one billing transaction in the making, and the one place that writes them."""

import json
from collections.abc import Iterable
from typing import Any

import msgspec
from sqlalchemy import delete, func, update
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.budgets import wallet
from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import NanoDollars
from tokenyard.core.price import inference_cost, training_cost
from tokenyard.core.redis_keys import bucket_of
from tokenyard.metering.events import TrainingFinished
from tokenyard.storage import bulk
from tokenyard_billing.charging.decision import NOTHING, Decision, Finding, Rule
from tokenyard_billing.charging.reports import Report, row_of
from tokenyard_billing.ledger import journal
from tokenyard_billing.ledger.projections import SpendingChanges, add_hourly_usage
from tokenyard_billing.periods import period_of
from tokenyard_billing.pricing.checksums import RateCardSeals
from tokenyard_billing.pricing.prices import PriceList
from tokenyard_billing.pricing.rate_cards import RateCard
from tokenyard_billing.tables import Alarm, Charge, OpenRequest, Reservation, UsageReport, Waste

TIME_ZONE = "UTC"  # every organization's, until it can choose one


class Taken(msgspec.Struct):
    """What a transaction did. `settled`: by organization and budget, the charge keys that are in SQL now.

    `charges` and `alarms` count by rule and by kind.
    """

    settled: dict[OrganizationId, dict[str, set[str]]] = msgspec.field(default_factory=dict)
    charges: dict[str, int] = msgspec.field(default_factory=dict)
    alarms: dict[str, int] = msgspec.field(default_factory=dict)
    sealed: list[str] = msgspec.field(default_factory=list)


class OpenReservation(msgspec.Struct, frozen=True):
    """What was set aside for a job."""

    amount: NanoDollars
    reserved_at_ms: int
    scopes: tuple[str, str, str]
    budgets: tuple[str, ...]


class Batch:
    """Collects rows; `write` writes them all."""

    def __init__(self, prices: PriceList, now_ms: int) -> None:
        self.taken = Taken()
        self._prices = prices
        self._now_ms = now_ms
        self._reports: list[dict[str, Any]] = []
        self._charges: list[dict[str, Any]] = []
        self._waste: list[dict[str, Any]] = []
        self._alarms: list[dict[str, Any]] = []
        self._opened: list[dict[str, Any]] = []
        self._closed: list[str] = []
        self._finished_jobs: list[str] = []
        self._cards: dict[str, RateCard] = {}
        self._spending = SpendingChanges()
        self._postings: list[journal.Posting] = []
        self._posted_charges: list[list[dict[str, Any]]] = []  # for each posting, the charges that it posts

    def report(self, report: Report) -> None:
        """Keep what a witness said."""
        self._reports.append(row_of(report))

    def settled(self, organization: OrganizationId, budgets: Iterable[str], charge_key: str) -> None:
        """Note that `charge_key` needs no pending amount on the wallet and `budgets` any more."""
        of_organization = self.taken.settled.setdefault(organization, {})
        for name in (wallet(organization), *budgets):
            of_organization.setdefault(name, set()).add(charge_key)

    def wait(self, report: Report, deadline_ms: int | None) -> None:
        """Note that the report's request cannot be decided yet, or only after `deadline_ms`."""
        organization = report.claims.organization
        row = {"request": report.request, "organization": organization, "bucket": bucket_of(organization)}
        self._opened.append({**row, "looked_at_ms": report.received_at_ms, "deadline_ms": deadline_ms})

    def close(self, request: str) -> None:
        """Note that nothing is waited for any more."""
        self._closed.append(request)

    def charge(self, request: str, decision: Decision) -> None:
        """Charge a request as decided."""
        claims, usage = decision.claims, decision.usage
        amount = inference_cost(self._price(claims.price), usage)
        row = self._charge_row(request, claims, amount, decision.rule) | {
            "kind": "inference",
            "endpoint": claims.endpoint,
            "attempt": decision.attempt,
            "prompt_tokens": usage.prompt_tokens,
            "cached_tokens": usage.cached_tokens,
            "completion_tokens": usage.completion_tokens,
            "budgets": json.dumps(claims.budgets),
        }
        self._charges.append(row)
        self._spending.add(_scopes(row), claims.admitted_at_ms, spent=amount)
        for report in decision.waste:
            self.waste(report)
        self.find(decision.findings, claims.organization)

    def charge_training(self, event: TrainingFinished, reservation: OpenReservation | None) -> None:
        """Charge a finished job from its reservation, or from the wallet where there is none."""
        amount = training_cost(self._price(event.price), event.trained_tokens)
        budgets = tuple(dict.fromkeys((*event.budgets, *(reservation.budgets if reservation else ()))))
        row = self._charge_row(event.job, event, amount, Rule.TRAINING) | {
            "kind": "training",
            "trained_tokens": event.trained_tokens,
            "budgets": json.dumps(budgets),
        }
        self._charges.append(row)
        self._spending.add(_scopes(row), event.admitted_at_ms, spent=amount)
        reserved = reservation.amount if reservation else NanoDollars(0)
        posting = journal.reservation_closed(event.organization, reserved=reserved, cost=amount, reference=event.job)
        if posting:
            self._postings.append(posting)
            self._posted_charges.append([row])
        if reservation:
            self._spending.add(reservation.scopes, reservation.reserved_at_ms, reserved=-reserved)
            self._finished_jobs.append(event.job)
        self.settled(event.organization, budgets, event.job)

    def waste(self, report: Report) -> None:
        """Keep a replica's work that nobody pays."""
        claims, usage = report.claims, report.usage
        self._waste.append(
            {
                "attempt": report.attempt,
                "request": report.request,
                "organization": claims.organization,
                "model": claims.model,
                "prompt_tokens": usage.prompt_tokens,
                "cached_tokens": usage.cached_tokens,
                "completion_tokens": usage.completion_tokens,
                "amount": inference_cost(self._price(claims.price), usage),
                "at_ms": report.at_ms,
            }
        )

    def find(self, findings: Iterable[Finding], organization: OrganizationId) -> None:
        """Raise an alarm for each finding."""
        for finding in findings:
            self.taken.alarms[finding.kind] = self.taken.alarms.get(finding.kind, 0) + 1
            row = {"organization": organization, "at_ms": self._now_ms}
            self._alarms.append(row | msgspec.structs.asdict(finding))

    async def write(self, session: AsyncSession, seals: RateCardSeals) -> Taken:
        """Write everything in the session's transaction."""
        self.taken.sealed = await seals.use(session, self._cards.values(), self._now_ms)
        self._post_usage()
        identities = await journal.post(session, self._postings, self._now_ms)
        for identity, charges in zip(identities, self._posted_charges, strict=True):
            for charge in charges:
                charge["transaction"] = identity
        await bulk.insert(session, UsageReport, self._reports)
        await bulk.insert(session, Charge, self._charges)
        await bulk.insert_new(session, Waste, self._waste)
        await bulk.insert_new(session, Alarm, self._alarms)
        await self._write_open_requests(session)
        if self._finished_jobs:
            done = {"state": "charged", "closed_at_ms": self._now_ms}
            await session.execute(update(Reservation).where(Reservation.job.in_(self._finished_jobs)).values(done))
        await self._spending.write(session)
        await add_hourly_usage(session, self._charges)
        return self.taken

    def _post_usage(self) -> None:
        by_organization: dict[OrganizationId, list[dict[str, Any]]] = {}
        for charge in self._charges:
            if charge["kind"] == "inference" and charge["amount"]:
                by_organization.setdefault(charge["organization"], []).append(charge)
        for organization, charges in sorted(by_organization.items()):
            amount = NanoDollars(sum(charge["amount"] for charge in charges))
            reference = f"{charges[0]['charge_key']} and {len(charges) - 1} more"
            self._postings.append(journal.usage_charged(organization, amount, reference=reference))
            self._posted_charges.append(charges)

    async def _write_open_requests(self, session: AsyncSession) -> None:
        if self._closed:
            await session.execute(delete(OpenRequest).where(OpenRequest.request.in_(self._closed)))
        if self._opened:
            statement = bulk.upsert(session, OpenRequest)
            deadline = func.coalesce(statement.excluded.deadline_ms, OpenRequest.deadline_ms)
            statement = statement.on_conflict_do_update(index_elements=["request"], set_={"deadline_ms": deadline})
            await (await session.connection()).execute(statement, self._opened)

    def _price(self, identity: str) -> Any:
        card = self._prices.card_of(identity)
        self._cards[card.version] = card
        return self._prices.by_id(identity)

    def _charge_row(self, key: str, source: Any, amount: int, rule: Rule) -> dict[str, Any]:
        self.taken.charges[rule.value] = self.taken.charges.get(rule.value, 0) + 1
        return {
            "charge_key": key,
            "organization": source.organization,
            "project": source.project,
            "key": source.key,
            "rule": rule.value,
            "endpoint": "",
            "model": source.model,
            "base_model": source.base_model,
            "price": source.price,
            "attempt": None,
            "prompt_tokens": NOTHING.prompt_tokens,
            "cached_tokens": NOTHING.cached_tokens,
            "completion_tokens": NOTHING.completion_tokens,
            "trained_tokens": 0,
            "amount": amount,
            "admitted_at_ms": source.admitted_at_ms,
            "charged_at_ms": self._now_ms,
            "period": period_of(source.admitted_at_ms, TIME_ZONE),
            "time_zone": TIME_ZONE,
            "transaction": None,
        }


def _scopes(charge: dict[str, Any]) -> tuple[str, str, str]:
    return charge["organization"], charge["project"], charge["key"]
