"""Checks the books: journal, charges, witnesses, projections, and Redis against SQL. Read only."""

from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from sqlalchemy import and_, exists, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from tokenyard.core.budgets import wallet
from tokenyard.core.ids import OrganizationId
from tokenyard.core.redis_keys import BUCKETS, bucket_of, budget
from tokenyard.storage.database import Database
from tokenyard_billing.charging.reports import ReportWitness
from tokenyard_billing.charging.streams import UsageStreams
from tokenyard_billing.ledger.journal import AccountName
from tokenyard_billing.proof.views import Difference, Reconciliation, TokenSums
from tokenyard_billing.tables import Balance, Charge, Entry, HourlyUsage, OpenRequest, UsageReport, Waste

EXAMPLES = 20  # of each kind; the sums count all
PAGE = 500
STATEMENT_TIMEOUT_S = 600.0  # each of them reads whole tables


class LedgerReconciler:
    """Runs the checks in one snapshot of SQL; Redis is compared where no event and no hold is on its way."""

    def __init__(self, database: Database, redis: Redis) -> None:
        self._database = database
        self._redis = redis

    async def reconcile(self) -> Reconciliation:
        """Check I1 (transactions sum to 0), I2 (witnesses), I3 (charges once, in journal and sums), I6 (Redis)."""
        async with self._database.reading(statement_timeout_s=STATEMENT_TIMEOUT_S) as session:
            if not self._database.is_sqlite:  # there, a reader sees one snapshot anyway
                await session.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
            found = [*await _journal(session), *await _charges(session), *await _projections(session)]
            tokens, named = await _witnesses(session)
        found += named
        if tokens.unexplained:
            found.append(_broken("tokens_unexplained", "all", f"{tokens.unexplained} tokens"))
        found += await self._live()
        ok = not any(difference.broken for difference in found)
        return Reconciliation(ok=ok, differences=found, tokens=tokens)

    async def _live(self) -> list[Difference]:
        """Compare every wallet in Redis with its balance, twice: what moved in between is on its way, not different."""
        suspects = await self._differing_wallets(None)
        if not suspects:
            return []
        still = await self._differing_wallets(list(suspects))
        return [
            _broken("live_budget", wallet(organization), detail)
            for organization, detail in still.items()
            if suspects[organization] == detail
        ]

    async def _differing_wallets(self, only: Sequence[OrganizationId] | None) -> dict[OrganizationId, str]:
        quiet = await self._quiet_buckets()
        differing: dict[OrganizationId, str] = {}
        last = ""
        while True:
            query = select(Balance.organization, Balance.amount).where(
                Balance.account == AccountName.WALLET, Balance.organization > last
            )
            if only is not None:
                query = query.where(Balance.organization.in_(only))
            async with self._database.reading() as session:
                rows = (await session.execute(query.order_by(Balance.organization).limit(PAGE))).all()
            names = [
                (OrganizationId(name), amount) for name, amount in rows if bucket_of(OrganizationId(name)) in quiet
            ]
            pipeline = self._redis.pipeline(transaction=False)
            for organization, _ in names:
                name = budget(bucket_of(organization), wallet(organization))
                pipeline.hmget(name, "ledger", "pending", "held")
            for (organization, amount), (ledger, pending, held) in zip(names, await pipeline.execute(), strict=True):
                # A wallet that Redis does not have is loaded when it is needed.
                if ledger is not None and (int(ledger), int(pending or 0)) != (amount, 0) and not int(held or 0):
                    differing[organization] = f"SQL {amount}, Redis {int(ledger)}, pending {int(pending or 0)}"
            if len(rows) < PAGE:
                return differing
            last = rows[-1][0]

    async def _quiet_buckets(self) -> set[int]:
        """Return the buckets with no event on its way and nothing waited for."""
        lengths = await UsageStreams(self._redis, "reconcile").lengths(range(BUCKETS))
        async with self._database.reading() as session:
            waiting = set(await session.scalars(select(OpenRequest.bucket).distinct()))
        return {bucket for bucket, length in lengths.items() if not length and bucket not in waiting}


def _broken(name: str, subject: str, detail: str) -> Difference:
    return Difference(name=name, subject=subject, detail=detail, broken=True)


async def _journal(session: AsyncSession) -> list[Difference]:
    unbalanced = (
        select(Entry.transaction, func.sum(Entry.amount))
        .group_by(Entry.transaction)
        .having(func.sum(Entry.amount) != 0)
        .limit(EXAMPLES)
    )
    found = [
        _broken("transaction_not_zero", transaction, f"sums to {total} nano-dollars")
        for transaction, total in await session.execute(unbalanced)
    ]
    sums = (
        select(Entry.organization, Entry.account, func.sum(Entry.amount).label("total"))
        .group_by(Entry.organization, Entry.account)
        .subquery()
    )
    same = and_(Balance.organization == sums.c.organization, Balance.account == sums.c.account)
    stale = (
        select(sums.c.organization, sums.c.account, sums.c.total, Balance.amount)
        .join_from(sums, Balance, same, isouter=True)
        .where((Balance.amount.is_(None)) | (Balance.amount != sums.c.total))
        .limit(EXAMPLES)
    )
    return found + [
        _broken("balance_not_entries", f"{name}/{account}", f"balance {amount}, entries {total}")
        for name, account, total, amount in await session.execute(stale)
    ]


async def _charges(session: AsyncSession) -> list[Difference]:
    """Every charge stands in the journal once: revenue of its transaction = the charges that it posted."""
    charged = (
        select(Charge.transaction, func.sum(Charge.amount).label("total"))
        .where(Charge.transaction.is_not(None))
        .group_by(Charge.transaction)
        .subquery()
    )
    revenue = aliased(Entry)
    query = (
        select(charged.c.transaction, charged.c.total, revenue.amount)
        .join_from(
            charged,
            revenue,
            and_(revenue.transaction == charged.c.transaction, revenue.account == AccountName.REVENUE),
            isouter=True,
        )
        .where(func.coalesce(revenue.amount, 0) != charged.c.total)
        .limit(EXAMPLES)
    )
    found = [
        _broken("charges_not_revenue", transaction, f"charges {total}, revenue {amount}")
        for transaction, total, amount in await session.execute(query)
    ]
    unposted = select(Charge.charge_key).where(Charge.transaction.is_(None), Charge.amount != 0).limit(EXAMPLES)
    return found + [
        _broken("charge_not_posted", key, "has an amount and no transaction") for key in await session.scalars(unposted)
    ]


async def _projections(session: AsyncSession) -> list[Difference]:
    """Hourly usage sums to the charges of each organization."""
    charged = _by_organization(Charge)
    hourly = _by_organization(HourlyUsage)
    query = (
        select(charged.c.organization, charged.c.total, hourly.c.total)
        .join_from(charged, hourly, charged.c.organization == hourly.c.organization, isouter=True)
        .where(func.coalesce(hourly.c.total, 0) != charged.c.total)
        .limit(EXAMPLES)
    )
    return [
        _broken("usage_not_charges", organization, f"charges {total}, hourly usage {hours}")
        for organization, total, hours in await session.execute(query)
    ]


def _by_organization(table: type[Charge] | type[HourlyUsage]) -> Any:
    return select(table.organization, func.sum(table.amount).label("total")).group_by(table.organization).subquery()


async def _witnesses(session: AsyncSession) -> tuple[TokenSums, list[Difference]]:
    """Explain every token that a replica reported, and every charge that no replica vouches for."""
    replica = UsageReport.witness == ReportWitness.REPLICA
    said = UsageReport.prompt_tokens + UsageReport.completion_tokens
    billed = Charge.prompt_tokens + Charge.completion_tokens
    wasted = Waste.prompt_tokens + Waste.completion_tokens
    reported = await _total(session, select(func.sum(said)).where(replica))
    charged = await _total(session, select(func.sum(billed)))
    waste = await _total(session, select(func.sum(wasted)))
    named: dict[str, int] = {}
    found: list[Difference] = []

    vouched = exists().where(UsageReport.attempt == Charge.attempt, replica)
    silent = select(Charge.attempt, -billed).where(Charge.attempt.is_not(None), billed > 0, ~vouched)
    differs = (
        select(UsageReport.attempt, said - billed)
        .join_from(UsageReport, Charge, UsageReport.attempt == Charge.attempt)
        .where(replica, said != billed)
    )
    undecided = (
        select(UsageReport.attempt, said)
        .join_from(UsageReport, OpenRequest, UsageReport.request == OpenRequest.request)
        .where(replica)
    )
    for name, query in (("replica_silent", silent), ("counts_differ", differs), ("undecided", undecided)):
        listed = query.subquery()
        named[name] = await _total(session, select(func.sum(listed.c[1])))
        found += [
            Difference(name=name, subject=str(attempt), detail=f"{tokens:+} tokens", broken=False)
            for attempt, tokens in await session.execute(query.limit(EXAMPLES))
        ]
    unexplained = reported - charged - waste - sum(named.values())
    sums = TokenSums(reported=reported, charged=charged, waste=waste, named=named, unexplained=unexplained)
    return sums, found


async def _total(session: AsyncSession, query: Any) -> int:
    return int(await session.scalar(query) or 0)
