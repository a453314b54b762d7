"""Checks the books: SQL against itself, in one snapshot, and Redis against SQL. Read only."""

from redis.asyncio import Redis

from tokenyard.core.clock import Clock
from tokenyard.storage.database import Database
from tokenyard.storage.redis import RedisRun, current_run
from tokenyard_billing.ports import LiveBudgetReader, UnfinishedJobs
from tokenyard_billing.proof.checks.books import check_charges, check_hourly_usage, check_journal
from tokenyard_billing.proof.checks.comparison import noted
from tokenyard_billing.proof.checks.credit_notes import check_credit_notes
from tokenyard_billing.proof.checks.invoice_taxes import check_invoice_taxes
from tokenyard_billing.proof.checks.invoices import check_invoices
from tokenyard_billing.proof.checks.issued_invoices import check_issued_invoices
from tokenyard_billing.proof.checks.messages import check_messages
from tokenyard_billing.proof.checks.payments import check_payments
from tokenyard_billing.proof.checks.reservations import check_orphans, check_reservations
from tokenyard_billing.proof.checks.seals import check_seals
from tokenyard_billing.proof.checks.spending import check_spending
from tokenyard_billing.proof.checks.witnesses import check_witnesses
from tokenyard_billing.proof.live_books import LiveBooks
from tokenyard_billing.proof.views import Difference, Reconciliation

PAUSE_S = 2.0  # the outbox's loop carries what was left to it within one
HOLD_GRACE_S = 60.0
STATEMENT_TIMEOUT_S = 600.0  # each of them reads whole tables
_OF_SQL_ALONE = (
    *(check_journal, check_charges, check_hourly_usage),
    *(check_spending, check_invoices, check_issued_invoices, check_invoice_taxes, check_credit_notes),
    check_payments,
)


class LedgerReconciler:
    """SQL adds up and compares; only what differs comes here, a bounded number of each kind.

    `pause_s` lies between two looks at Redis; `hold_grace_s` is how late the sweeper of holds may be.
    """

    def __init__(
        self,
        database: Database,
        redis: Redis,
        reader: LiveBudgetReader,
        jobs: UnfinishedJobs,
        clock: Clock,
        *,
        pause_s: float = PAUSE_S,
        hold_grace_s: float = HOLD_GRACE_S,
    ) -> None:
        self._database = database
        self._redis = redis
        self._reader = reader
        self._jobs = jobs
        self._clock = clock
        self._pause_s = pause_s
        self._hold_grace_s = hold_grace_s

    async def reconcile(self) -> Reconciliation:
        """Run every check; raises `redis.RedisError` where Redis does not answer."""
        run = await current_run(self._redis)
        now_ms = self._clock.now_ms()
        async with self._database.snapshot(statement_timeout_s=STATEMENT_TIMEOUT_S) as session:
            tokens, found = await check_witnesses(session)
            for check in _OF_SQL_ALONE:
                found += await check(session)
            found += await check_reservations(session, now_ms)
            found += await check_orphans(session, self._jobs, now_ms)
            found += await check_messages(session, run.id, now_ms)
            found += await check_seals(session, now_ms)
        found += await self._live(run)
        return Reconciliation(ok=not any(one.broken for one in found), differences=found, tokens=tokens)

    async def _live(self, run: RedisRun) -> list[Difference]:
        live = LiveBooks(
            self._database, self._redis, self._reader, run, pause_s=self._pause_s, hold_grace_s=self._hold_grace_s
        )
        found = await live.differences()
        if (await current_run(self._redis)).id != run.id:
            return [noted("redis_restarted", run.id, "Redis came back meanwhile and was not compared")]
        return found
