"""The loop that brings usage events into the ledger, exactly once whatever dies in between.

SQL commit, then live budgets, then acknowledgement: a crash between any two delivers the events again, the outbox
carries what the commit left to do, and every step may be repeated.
"""

import logging
import time
from collections.abc import Sequence

from sqlalchemy import exc

from tokenyard.storage.database import Database
from tokenyard.storage.transactional_outbox import TransactionalOutbox
from tokenyard.web.loops import Loop
from tokenyard_billing.bucket_leases import BucketLeases
from tokenyard_billing.charging.batch import Taken
from tokenyard_billing.charging.dead_letters import keep_dead_letter
from tokenyard_billing.charging.intake import Intake, Received
from tokenyard_billing.charging.metrics import LedgerMetrics
from tokenyard_billing.charging.open_requests import OpenRequests
from tokenyard_billing.charging.price_waits import PriceWaits
from tokenyard_billing.charging.streams import StreamEntry, UsageStreams
from tokenyard_billing.charging.validation import Malformed, read_event
from tokenyard_billing.pricing.prices import PriceList
from tokenyard_billing.pricing.rate_cards import InvalidRateCard

_LOG = logging.getLogger(__name__)

INTERVAL_S = 0.2
BATCH = 1_000
MAX_DELIVERIES = 5
STEP_S = 3.0  # bounds one step, so that leases are renewed in time under any load
RETRY_MS = 2_000

_Valid = list[tuple[StreamEntry, Received]]


class LedgerConsumer:
    """Consumes the buckets that this worker leases."""

    def __init__(
        self,
        *,
        database: Database,
        leases: BucketLeases,
        streams: UsageStreams,
        intake: Intake,
        prices: PriceList,
        outbox: TransactionalOutbox,
        metrics: LedgerMetrics,
        open_requests: OpenRequests,
    ) -> None:
        self._database = database
        self._leases = leases
        self._streams = streams
        self._intake = intake
        self._prices = prices
        self._outbox = outbox
        self._metrics = metrics
        self._open_requests = open_requests
        self._ours: frozenset[int] = frozenset()
        self._inherited: set[int] = set()  # buckets whose earlier holder may have left entries behind
        self._put_off: dict[int, float] = {}  # buckets in which entries were left -> when (monotonic) they come again
        self._waits = PriceWaits(database, prices)
        self._read_until: dict[int, int] = {}  # Redis time by bucket

    def loop(self) -> Loop:
        return Loop("ledger consumer", self.step, INTERVAL_S)

    async def step(self) -> None:
        """Take in everything that is there now, and decide what has waited long enough."""
        try:
            await self._step()
        except BaseException:
            # What was read and not acknowledged is taken over again, like another worker's.
            self._ours = frozenset()
            raise

    async def _step(self) -> None:
        held = await self._hold()
        if fresh := held - self._ours:
            await self._streams.create_groups(fresh)
            self._inherited |= fresh
        self._ours = held
        self._inherited &= held
        self._put_off = {bucket: due for bucket, due in self._put_off.items() if bucket in held}
        self._waits.keep(held)
        await self._take_left_behind()
        deadline = time.monotonic() + STEP_S
        while await self._take_new() and time.monotonic() < deadline:
            pass
        await self._decide_overdue()
        await self._open_requests.look_for_orphans(self._ours, await self._streams.now_ms())

    async def _hold(self) -> frozenset[int]:
        watermarks = await self._streams.watermarks(self._ours) if self._leases.due else {}
        return await self._leases.hold(watermarks)

    async def _take_left_behind(self) -> None:
        """Take all that is pending in a bucket: what was inherited, or was left, or waited for a price."""
        left = {bucket for bucket, due in self._put_off.items() if due <= time.monotonic()}
        for bucket in sorted(self._inherited | left | await self._waits.over()):
            self._put_off.pop(bucket, None)
            self._waits.discard(bucket)
            async for entries in self._streams.left_behind(bucket, count=BATCH):
                await self._take(entries)
                await self._hold()  # there may be very many of them
            if bucket in left:
                await self._streams.trim(bucket)
            self._inherited.discard(bucket)

    async def _take_new(self) -> bool:
        """Read one round of new entries; tell whether there may be more."""
        now_ms = await self._streams.now_ms()
        lengths = await self._streams.lengths(sorted(self._ours))
        self._metrics.lag(lengths)
        busy = [bucket for bucket, length in lengths.items() if length]
        count = max(1, BATCH // len(busy)) if busy else 0
        entries = await self._streams.read_new(busy, count) if busy else []
        await self._take(entries)
        read: dict[int, list[StreamEntry]] = {}
        for entry in entries:
            read.setdefault(entry.bucket, []).append(entry)
        # What is neither new nor waits for a price was read by a worker that had lost its lease, or was not removed.
        for bucket in set(busy) - read.keys() - self._waits.buckets:
            self._put_off.setdefault(bucket, time.monotonic() + RETRY_MS / 1000)
        for bucket in self._ours:
            of_bucket = read.get(bucket, [])
            self._read_until[bucket] = of_bucket[-1].at_ms if len(of_bucket) >= max(1, count) else now_ms
        return bool(entries)

    async def _take(self, entries: Sequence[StreamEntry]) -> None:
        if not entries:
            return
        valid = await self._validate(entries)
        if not valid:
            return
        try:
            taken = await self._commit(valid)
        except Exception as error:
            if not _is_of_the_event(error):
                raise
            _LOG.warning("a batch of %d events failed, taking them one by one: %s", len(valid), error)
            for entry, received in valid:
                await self._take_alone(entry, received)
        else:
            await self._finish(valid, taken)

    async def _take_alone(self, entry: StreamEntry, received: Received) -> None:
        try:
            taken = await self._commit([(entry, received)])
        except Exception as error:
            if not _is_of_the_event(error):
                raise
            await self._give_up_or_put_off(entry, f"{type(error).__name__}: {error}")
        else:
            await self._finish([(entry, received)], taken)

    async def _validate(self, entries: Sequence[StreamEntry]) -> _Valid:
        valid: _Valid = []
        for entry in entries:
            if entry.fields is None:
                await self._streams.acknowledge([entry])
                continue
            try:
                event = read_event(entry.fields, entry.bucket)
            except Malformed as error:
                await self._give_up(entry, str(error))
            else:
                valid.append((entry, Received(event, entry.at_ms)))
        return valid

    async def _commit(self, valid: _Valid) -> Taken:
        now_ms = await self._streams.now_ms()
        cards_known = len(self._prices.cards)
        async with self._database.transaction() as session:
            await self._leases.fence(session, {entry.bucket for entry, _ in valid})
            taken = await self._intake.take(session, [received for _, received in valid], now_ms)
        for place in taken.waiting:
            self._waits.add(valid[place][0].bucket, cards_known)
        return taken

    async def _finish(self, valid: _Valid, taken: Taken) -> None:
        """Bring the live budgets up to what is committed, then acknowledge what need not wait."""
        self._metrics.taken(len(valid) - len(taken.waiting), taken)
        self._metrics.waiting(len(taken.waiting))
        await self._outbox.carry(taken.messages)
        await self._streams.acknowledge(entry for place, (entry, _) in enumerate(valid) if place not in taken.waiting)

    async def _give_up_or_put_off(self, entry: StreamEntry, reason: str) -> None:
        if entry.deliveries >= MAX_DELIVERIES:
            await self._give_up(entry, reason)
        else:
            _LOG.warning(
                "entry %s of bucket %d failed, delivery %d: %s", entry.id, entry.bucket, entry.deliveries, reason
            )
            self._put_off.setdefault(entry.bucket, time.monotonic() + RETRY_MS / 1000)
            self._metrics.put_off()

    async def _give_up(self, entry: StreamEntry, reason: str) -> None:
        _LOG.error("entry %s of bucket %d is dead: %s", entry.id, entry.bucket, reason)
        now_ms = await self._streams.now_ms()
        async with self._database.transaction() as session:
            await self._leases.fence(session, {entry.bucket})
            await keep_dead_letter(session, entry, reason, now_ms)
        self._metrics.dead()
        await self._streams.acknowledge([entry])

    async def _decide_overdue(self) -> None:
        """Time is Redis time as far as the stream was read: after a pause nothing is decided too early."""
        unread = self._put_off.keys() | self._inherited
        watermarks = {bucket: ms for bucket, ms in self._read_until.items() if bucket in self._ours - unread}
        while due := await self._open_requests.overdue(watermarks):
            now_ms = await self._streams.now_ms()
            async with self._database.transaction() as session:
                await self._leases.fence(session, set(due.values()))
                taken = await self._intake.take_overdue(session, list(due), now_ms)
            self._metrics.taken(0, taken)
            await self._outbox.carry(taken.messages)


def _is_of_the_event(error: Exception) -> bool:
    """Tell an event that SQL cannot take from a database that is away: only the first may ever be given up."""
    if isinstance(error, InvalidRateCard):  # the database's fault, and every event's
        return False
    if isinstance(error, exc.DataError | exc.IntegrityError):
        return True
    if isinstance(error, exc.DBAPIError):
        state = str(getattr(error.orig, "sqlstate", "") or "")
        return state[:2] in {"22", "23", "54"}
    return isinstance(error, exc.StatementError | ValueError | TypeError | LookupError | ArithmeticError)
