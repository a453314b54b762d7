"""The invariants of money (design, section 4): at every moment, and when all has come to rest."""

import contextlib
from collections.abc import Iterable, Mapping, Sequence

import pytest
from redis.asyncio import Redis
from sqlalchemy import func, select

from support.billing.stand import RATE, reconciler
from support.fakes.rate_cards import GB_MONTH, HOUR, PINNED_HOUR
from support.money.actions import REFUSED, MoneyActions, request_of
from support.money.live_budgets import read_budget
from support.money.model import LetIn, Tenant
from support.money.plan_fees import Subscriptions
from support.money.processes import principal_of
from support.money.stand import MoneyStand
from support.redis_reader import as_bytes, read_hash, read_scope
from tokenyard.core.budgets import budgets_of, scope_and_month, wallet
from tokenyard.core.clock import SystemClock
from tokenyard.core.money import inference_cost
from tokenyard.core.redis_keys import bucket_of, bucket_tag, budget, budget_in, pending, request, revision
from tokenyard.core.usage import TokenUsage
from tokenyard.limits.budget_figures import NO_LEDGER, BudgetFigures
from tokenyard.limits.holds import SETTLED
from tokenyard.metering.events import AdapterHosted, Outcome, StorageHeld
from tokenyard.storage.database import Base
from tokenyard.tenancy.operator_store import TenancyOperatorStore
from tokenyard_billing.invoice_tables import CreditNote, Invoice
from tokenyard_billing.tables import Balance, Charge, CreditGrant, Entry, Reservation
from tokenyard_billing.wallets.budgets import SqlBudgets

_DUE = {"open": "receivable", "paid": "cash", "void": "adjustments"}


class MoneyBooks:
    def __init__(self, actions: MoneyActions) -> None:
        self.actions = actions
        self.stand: MoneyStand = actions.stand
        self.told = actions.told
        self._sql = SqlBudgets(self.stand.database)
        self._limits = LimitHistory(self.stand)
        self._came_to: dict[str, int] = {}
        self.subscriptions = Subscriptions(self.stand)

    async def check_now(self) -> None:
        """I5, at any moment: nobody overspends, and Redis never offers more than there is."""
        charged = await self.stand.charged()
        for tenant in self.told.tenants:
            in_force = await self._limits.in_force_since_last(tenant)
            taken = [(one, await self._may_still_cost(one)) for one in self._uncharged(tenant, charged)]
            in_redis = await self._live(tenant)
            names = {wallet(tenant.organization), *in_redis}
            states = (await self._sql.states({tenant.organization: names}))[tenant.organization]
            for name, state in states.items():
                left = state.ledger - sum(cost for one, cost in taken if name in one.claims.budgets)
                if tenant.project in name:
                    continue  # where a limit is new, what was let in before it is not held on it
                # What nobody asked for is not let in, so nothing holds it back; Redis hears of its charge afterwards.
                left += self._unasked(tenant, name, charged) + await self._fees(tenant, name)
                self._check_spent(name, left, in_force)
                if name in in_redis:
                    offered = in_redis[name]
                    assert offered <= left, f"{name}: Redis offers {offered}, and {left} is left"

    async def check_at_rest(self) -> None:
        """All invariants, after `recover`. Afterwards there are holds of the test's own."""
        stand = self.stand
        assert await stand.unfinished() == []
        await self._check_nothing_held()
        await self._check_charges()
        await self._check_jobs()
        await self._check_credit()
        await self._check_invoices()
        await self._check_redis_equals_sql()
        await self._check_windows()
        await self._check_apart()
        result = await reconciler(stand.database, stand.redis, clock=stand.clock).reconcile()
        assert [difference for difference in result.differences if difference.broken] == []
        assert (result.tokens.unexplained, result.tokens.named["undecided"]) == (0, 0)
        await self.check_now()
        for tenant in self.told.tenants:
            await self._check_offer(tenant)

    def _check_spent(self, name: str, left: int, in_force: Mapping[str, int]) -> None:
        """Compare with what might be spent; above a lowered limit only what was let in before stays."""
        found = scope_and_month(name)
        limit = in_force[found[0]] if found else 0
        before = self._came_to.get(name, 0)
        assert -left <= max(limit, before), f"{name} came to {-left}, with a limit of {limit} and {before} before"
        self._came_to[name] = -left

    def _uncharged(self, tenant: Tenant, charged: set[str]) -> list[LetIn]:
        return [
            one
            for one in self.told.requests.values()
            if one.claims.organization == tenant.organization and one.id not in charged
        ]

    async def _may_still_cost(self, one: LetIn) -> int:
        done = await self.stand.redis.get(request(bucket_of(one.claims.organization), one.id)) == SETTLED
        return one.cost if done and one.outcome is not Outcome.CLIENT_LEFT else one.amount

    async def _live(self, tenant: Tenant) -> dict[str, int]:
        """Return what Redis offers of each budget that it has, without the limit."""
        found = {}
        for name, figures in (await budgets_in_redis(self.stand.redis, tenant)).items():
            if figures.version != NO_LEDGER:
                found[name] = figures.ledger - figures.pending - figures.held
        return found

    async def _check_nothing_held(self) -> None:
        """I4."""
        for tenant in self.told.tenants:
            tag = bucket_tag(bucket_of(tenant.organization))
            assert await keys_of(self.stand.redis, f"{tag}:undecided:*") == []
            assert await read_hash(self.stand.redis, pending(bucket_of(tenant.organization))) == {}
            for name in await keys_of(self.stand.redis, f"{tag}:request:*"):
                assert await self.stand.redis.get(name) in (SETTLED, None), name
            for scope in tenant.scopes:
                counts = await read_scope(self.stand.redis, bucket_of(tenant.organization), scope)
                assert counts.slots == 0, f"{scope}: {counts.slots} slots in use"
            for name, figures in (await budgets_in_redis(self.stand.redis, tenant)).items():
                assert (figures.pending, figures.held) == (0, 0), name

    async def _check_charges(self) -> None:
        """I1, I3, and each request by the charge table."""
        async with self.stand.database.reading() as session:
            names = [tenant.organization for tenant in self.told.tenants]
            found = await session.scalars(select(Charge).where(Charge.organization.in_(names)))
            rows = {row.charge_key: row for row in found if row.correction is None}
            sums = await session.scalars(select(func.sum(Entry.amount)).group_by(Entry.transaction))
            assert set(sums.all()) <= {0}
        for one in self.told.requests.values():
            row = rows[one.id]
            usage = TokenUsage(row.prompt_tokens, row.completion_tokens, row.cached_tokens)
            assert usage in one.may_be_charged(), f"{one.id} was charged {usage} by {row.rule}: {one}"
            assert row.amount == inference_cost(RATE, usage)
        assert self.told.unasked.keys() <= rows.keys()
        for key, row in rows.items():
            if key in self.told.unasked:
                self._check_unasked(self.told.unasked[key], row)
            elif key not in self.told.requests and key not in self.told.jobs and not row.fees:
                assert row.amount == 0, f"{key} was never let in"

    def _check_unasked(self, event: AdapterHosted | StorageHeld, row: Charge) -> None:
        hosted = isinstance(event, AdapterHosted)
        pinned = isinstance(event, AdapterHosted) and event.pinned
        counts = (row.hosted_hours, row.pinned_hours, row.stored_months)
        assert counts == (int(hosted and not pinned), int(pinned), int(not hosted))
        assert (row.amount, row.rule, row.organization) == (
            *(_unasked_cost(event), "hosting" if hosted else "storage"),
            event.organization,
        )

    def _unasked(self, tenant: Tenant, name: str, charged: set[str]) -> int:
        """Return what of a budget went to hours of fine-tunes and to storage."""
        scope = (scope_and_month(name) or (None,))[0]
        return sum(
            _unasked_cost(event)
            for key, event in self.told.unasked.items()
            if key in charged
            and event.organization == tenant.organization
            and scope in (None, event.organization, event.project, event.key)
        )

    async def _fees(self, tenant: Tenant, name: str) -> int:
        """Return what of a budget went to fees of plans; they are of no project and no key."""
        scope = (scope_and_month(name) or (None,))[0]
        return await self.subscriptions.charged(tenant) if scope in (None, tenant.organization) else 0

    async def _check_jobs(self) -> None:
        async with self.stand.database.reading() as session:
            rows = {row.job: row for row in await session.scalars(select(Reservation))}
            charges = {row.charge_key: row for row in await session.scalars(select(Charge))}
        for job in self.told.jobs.values():
            if job.reserved:
                assert rows[job.id].state == "charged"
            if job.trained is not None:
                assert charges[job.id].trained_tokens == job.trained
                assert charges[job.id].amount == job.trained * RATE.training
        assert {row.state for row in rows.values()} <= {"charged"}, "money set aside for nobody"

    async def _check_credit(self) -> None:
        async with self.stand.database.reading() as session:
            grants = (await session.scalars(select(CreditGrant))).all()
        for tenant in self.told.tenants:
            given = {row.idempotency_key: row.amount for row in grants if row.organization == tenant.organization}
            assert given.items() >= tenant.granted.items()
            assert given.items() <= tenant.asked.items()

    async def _check_invoices(self) -> None:
        """Whatever closed in between, each charge is billed once, and what is owed stands in one account."""
        for worker in self.stand.workers:
            await worker.billing.corrections.step()
            await worker.billing.drafter.step()
        async with self.stand.database.reading() as session:
            charges = (await session.scalars(select(Charge))).all()
            invoices = (await session.scalars(select(Invoice))).all()
            notes = (await session.scalars(select(CreditNote))).all()
            sums = select(Balance.organization, Balance.account, Balance.amount)
            accounts = {(owner, name): amount for owner, name, amount in await session.execute(sums)}
        for tenant in self.told.tenants:
            owner = tenant.organization
            bills = [one for one in invoices if one.organization == owner]
            taken_back = [one for one in notes if one.organization == owner]
            used = sum(one.amount for one in charges if one.organization == owner)
            issued = [one for one in bills if one.state != "draft"]
            included = sum(one.tax_included for one in issued) - sum(one.tax_included for one in taken_back)
            billed = sum(one.total for one in bills) - sum(one.total for one in taken_back)
            assert billed == used == accounts.get((owner, "revenue"), 0) + included
            left = {one.id: _left(one, [note for note in taken_back if note.invoice == one.id]) for one in issued}
            assert sum(tax for _, tax in left.values()) == accounts.get((owner, "tax"), 0)
            await self.subscriptions.check(tenant)
            rounding = sum(one.rounding for one in issued) - sum(one.rounding for one in taken_back)
            assert rounding == accounts.get((owner, "rounding"), 0)
            assert {one.amount_due % 1_000 for one in issued} <= {0}
            due = {state: sum(left[one.id][0] for one in issued if one.state == state) for state in _DUE}
            assert {state: -accounts.get((owner, name), 0) for state, name in _DUE.items()} == due
        for documents in (invoices, notes):
            numbers = sorted(one.sequence for one in documents if one.sequence is not None)
            assert numbers == list(range(1, len(numbers) + 1))

    async def _check_redis_equals_sql(self) -> None:
        """I6."""
        for tenant in self.told.tenants:
            for name, figures in (await budgets_in_redis(self.stand.redis, tenant)).items():
                state = await self._sql.load(tenant.organization, name)
                if figures.version != NO_LEDGER:
                    assert (figures.ledger, figures.version) == (state.ledger, state.version), name

    async def _check_windows(self) -> None:
        """The windows of tokens count what was really used."""
        async with self.stand.database.reading() as session:
            charges = await session.scalars(select(Charge))
            used = {row.charge_key: row.prompt_tokens + row.completion_tokens for row in charges}
        for tenant in self.told.tenants:
            for scope in tenant.scopes:
                least = most = 0
                for one in self._of(scope):
                    counts = [used[one.id]]
                    if one.doubtful and one.outcome is not None:
                        counts.append(one.counted.total_tokens)
                    least += min(counts)
                    most += max(counts) * (1 + one.revived)
                counted = (await read_scope(self.stand.redis, bucket_of(tenant.organization), scope)).sum("tpd")
                assert counted <= most, f"{scope}: windows count {counted}, at most {most} were used"
                assert counted >= least or self.told.redis_lost, f"{scope}: {counted} of {least}"

    def _of(self, scope: str) -> Iterable[LetIn]:
        for one in self.told.requests.values():
            if scope in (one.claims.organization, one.claims.project, one.claims.key):
                yield one

    async def _check_apart(self) -> None:
        """I7."""
        for tenant in self.told.tenants:
            for other in self.told.tenants:
                if other is tenant:
                    continue
                await self._check_no_row_of(tenant, other)
                await self._check_no_key_of(tenant, other)

    async def _check_no_row_of(self, tenant: Tenant, other: Tenant) -> None:
        for table in Base.metadata.sorted_tables:
            if not table.name.startswith("billing_") or "organization" not in table.columns:
                continue
            async with self.stand.database.reading() as session:
                rows = await session.execute(select(table).where(table.c.organization == tenant.organization))
                for row in rows:
                    assert other.organization not in repr(row), table.name

    async def _check_no_key_of(self, tenant: Tenant, other: Tenant) -> None:
        for name in await keys_of(self.stand.redis, "*"):
            assert not (tenant.organization in name and other.organization in name), name
            if tenant.organization in name:
                assert name.startswith(bucket_tag(bucket_of(tenant.organization)))
                if await self.stand.redis.type(name) == b"hash":
                    assert other.organization not in repr(await read_hash(self.stand.redis, name)), name

    async def _check_offer(self, tenant: Tenant) -> None:
        """Exactly what SQL says is available is let in, and not a nano-dollar more."""
        [gateway, *_] = self.stand.gateways
        principal = await gateway.principal(tenant.keys[0])
        budgets = budgets_of(tenant.organization, principal.monthly_limits, SystemClock().now_ms())
        states = (await self._sql.states({tenant.organization: [one.name for one in budgets]}))[tenant.organization]
        available = min(one.limit + states[one.name].ledger for one in budgets)
        over = request_of(principal, f"over_{tenant.organization}", max(0, available + 1), 0)
        with pytest.raises(REFUSED):
            await gateway.admission.admit(over)
        if available >= 0:
            await gateway.admission.admit(request_of(principal, f"exact_{tenant.organization}", available, 0))

    async def check_rebuilt(self) -> None:
        """I6: an emptied Redis gets the same figures again."""
        stand = self.stand
        await stand.redis.flushall()
        await stand.divide_buckets()
        for worker in stand.workers:
            await worker.billing.readiness.step()
        for tenant in self.told.tenants:
            for key in tenant.keys:
                request = request_of(await stand.gateways[1].principal(key), f"again_{key}", 0, 0)
                with contextlib.suppress(*REFUSED):
                    await stand.gateways[1].admission.admit(request)
            assert wallet(tenant.organization) in await self._live(tenant)
        await self._check_redis_equals_sql()


def _unasked_cost(event: AdapterHosted | StorageHeld) -> int:
    if isinstance(event, StorageHeld):
        return GB_MONTH
    return PINNED_HOUR if event.pinned else HOUR


def _left(invoice: Invoice, notes: Sequence[CreditNote]) -> tuple[int, int]:
    """Return what of an issued invoice stands in the account of its state, and what of its tax is owed."""
    due = invoice.amount_due - sum(note.due_lowered for note in notes)
    tax = invoice.tax - sum(note.tax for note in notes)
    return (due - tax, 0) if invoice.state == "void" else (due, tax)


class LimitHistory:
    """The monthly limits by which a request may have been let in since the last look."""

    def __init__(self, stand: MoneyStand) -> None:
        self._stand = stand
        self._store = TenancyOperatorStore(stand.database, stand.clock)
        self._by_revision: dict[str, dict[int, Mapping[str, int]]] = {}
        self._in_redis: dict[str, int] = {}

    async def in_force_since_last(self, tenant: Tenant) -> dict[str, int]:
        """Return the highest limit of each scope in any revision that Redis let in, or SQL has."""
        callers = [await principal_of(self._store, key) for key in tenant.keys]
        known = self._by_revision.setdefault(tenant.organization, {})
        known[callers[0].revision] = callers[0].monthly_limits | callers[1].monthly_limits
        oldest = self._in_redis.get(tenant.organization, 0)
        seen = [limits for revision, limits in known.items() if revision >= oldest]
        text = await self._stand.redis.get(revision(bucket_of(tenant.organization), tenant.organization))
        self._in_redis[tenant.organization] = int(text or 0)
        return {scope: max(limits.get(scope, 0) for limits in seen) for scope in tenant.scopes}


async def budgets_in_redis(redis: Redis, tenant: Tenant) -> dict[str, BudgetFigures]:
    """Return the figures of each of the organization's budgets that Redis knows."""
    bucket = bucket_of(tenant.organization)
    names = [budget_in(key)[1] for key in await keys_of(redis, budget(bucket, "*")) if tenant.organization in key]
    return {name: await read_budget(redis, bucket, name) for name in names}


async def keys_of(redis: Redis, pattern: str) -> list[str]:
    return [as_bytes(name).decode() async for name in redis.scan_iter(pattern, count=1_000)]
