"""Deliveries of all organizations: leased to workers, noted when they were tried, and deleted when they are old."""

import random
import secrets
from collections.abc import Callable, Sequence

import msgspec
from sqlalchemy import ColumnElement, Select, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.clock import Clock
from tokenyard.core.ids import ApiKeyId, OrganizationId
from tokenyard.storage.database import AuditLog, Database, advisory_lock
from tokenyard.storage.encryption import Cipher
from tokenyard.webhooks.delivery.choice import OF_ENDPOINT, Candidate, choose
from tokenyard.webhooks.delivery.schedule import retry_delay_ms
from tokenyard.webhooks.delivery.sending import EndpointAnswer
from tokenyard.webhooks.disabling import disable
from tokenyard.webhooks.event import WebhookMessage
from tokenyard.webhooks.signing_secrets import secrets_of
from tokenyard.webhooks.states import DeliveryState
from tokenyard.webhooks.tables import WebhookAttemptRow, WebhookDeliveryRow, WebhookEndpointRow, WebhookEventRow

LEASE_MS = 60_000
"""Four times what an attempt may take, so that no other worker begins before one ends."""
CANDIDATES = 500
KEPT_MS = 30 * 86_400_000
GIVEN_UP_MS = 5 * 86_400_000
"""An endpoint that has failed for so long, without one success, is disabled."""
_GONE = 410
_WORKER = ApiKeyId("worker")  # the actor of changes that no key asked for


class DueDelivery(msgspec.Struct, frozen=True):
    """A leased delivery: what is sent whither, and signed with which secrets."""

    id: int
    lease: str
    organization: OrganizationId
    endpoint: str
    url: str
    secrets: Sequence[str]
    message: WebhookMessage
    failing: bool


class WebhookOperatorStore:
    """`chance` gives numbers from 0 to 1, by which retries are spread."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        cipher: Cipher,
        audit: AuditLog,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._database = database
        self._clock = clock
        self._cipher = cipher
        self._audit = audit
        self._chance = chance

    async def claim(self, *, free: int, free_for_failing: int) -> list[DueDelivery]:
        """Lease deliveries that are due, at most `free`; one worker at a time chooses, so the bounds hold over all."""
        now_ms = self._clock.now_ms()
        async with self._database.reading() as session:  # an idle worker does not take the write lock
            if await session.scalar(_due(now_ms).limit(1)) is None:
                return []
        lease = secrets.token_hex(16)
        async with self._database.transaction() as session:
            await advisory_lock(session, "webhooks:claim")
            due = await _in_turn(session, now_ms, with_failing=free_for_failing > 0)
            under_way = await _under_way(session, now_ms)
            chosen = [one.id for one in choose(due, under_way, free=free, free_for_failing=free_for_failing)]
            if not chosen:
                return []
            # What its owner is changing is left for later: a claim that waited would hold up everybody's deliveries.
            due_still = WebhookDeliveryRow.id.in_(chosen), WebhookDeliveryRow.due_at_ms <= now_ms
            free_rows = select(WebhookDeliveryRow.id).where(*due_still).with_for_update(skip_locked=True)
            taken = update(WebhookDeliveryRow).where(WebhookDeliveryRow.id.in_(free_rows))
            await session.execute(
                taken.values(lease=lease, due_at_ms=now_ms + LEASE_MS).execution_options(synchronize_session=False)
            )
            query = (
                select(WebhookDeliveryRow.id, WebhookEndpointRow, WebhookEventRow)
                .join(WebhookEndpointRow, WebhookEndpointRow.id == WebhookDeliveryRow.endpoint)
                .join(WebhookEventRow, WebhookEventRow.id == WebhookDeliveryRow.event)
                .where(WebhookDeliveryRow.lease == lease)
                .order_by(WebhookDeliveryRow.id)
            )
            found = [(number, endpoint, event) for number, endpoint, event in await session.execute(query)]
        return [self._leased(number, lease, endpoint, event, now_ms) for number, endpoint, event in found]

    def _leased(
        self, number: int, lease: str, endpoint: WebhookEndpointRow, event: WebhookEventRow, now_ms: int
    ) -> DueDelivery:
        return DueDelivery(
            id=number,
            lease=lease,
            organization=OrganizationId(endpoint.organization),
            endpoint=endpoint.id,
            url=endpoint.url,
            secrets=secrets_of(endpoint, self._cipher, now_ms),
            message=WebhookMessage(event.id, event.type, event.at_ms // 1000, event.data),
            failing=endpoint.failing_since_ms is not None,
        )

    async def note(self, sent: DueDelivery, answer: EndpointAnswer, *, at_ms: int) -> DeliveryState | None:
        """Write down what came of the attempt that began at `at_ms`; return what the delivery is now.

        It is None where that is not ours to say any more: the lease is over, or the endpoint was deleted.
        """
        now_ms = self._clock.now_ms()
        async with self._database.transaction() as session:
            # The endpoint first, as whoever changes it does: two that lock in another order would block each other.
            endpoint = await session.get(WebhookEndpointRow, sent.endpoint, with_for_update=True)
            ours = WebhookDeliveryRow.id == sent.id, WebhookDeliveryRow.lease == sent.lease
            delivery = await session.scalar(select(WebhookDeliveryRow).where(*ours).with_for_update())
            if endpoint is None or delivery is None:
                return None
            session.add(_attempt(sent, answer, at_ms))
            delivery.attempts += 1
            delivery.lease = None
            if endpoint.url == sent.url:  # else it is another server that answered
                await self._judge(session, endpoint, answer, now_ms)
            delay_ms = retry_delay_ms(delivery.attempts, self._chance()) if endpoint.enabled else None
            if answer.accepted or delay_ms is None:
                delivery.state = DeliveryState.DELIVERED if answer.accepted else DeliveryState.FAILED
                delivery.due_at_ms = None
            else:
                delivery.due_at_ms = now_ms + delay_ms
            return DeliveryState(delivery.state)

    async def _judge(
        self, session: AsyncSession, endpoint: WebhookEndpointRow, answer: EndpointAnswer, now_ms: int
    ) -> None:
        """Note whether an endpoint fails; disable one that is gone, or has failed for too long."""
        if answer.accepted:
            endpoint.failing_since_ms = None
            return
        if endpoint.failing_since_ms is None:
            endpoint.failing_since_ms = now_ms
        if not endpoint.enabled:
            return
        reason = None
        if answer.status == _GONE:
            reason = "It answered 410 Gone."
        elif now_ms - endpoint.failing_since_ms >= GIVEN_UP_MS:
            reason = "Nothing was delivered for five days."
        if reason is not None:
            await disable(session, endpoint, reason, actor=_WORKER, audit=self._audit, now_ms=now_ms)

    async def delete_old(self, *, limit: int) -> int:
        """Delete up to `limit` events that are no longer kept, with all that is noted of them; return how many."""
        kept_from_ms = self._clock.now_ms() - KEPT_MS
        query = select(WebhookEventRow.id).where(WebhookEventRow.at_ms < kept_from_ms).limit(limit)
        async with self._database.reading() as session:
            old = list(await session.scalars(query))
        if old:
            async with self._database.transaction() as session:
                await session.execute(delete(WebhookAttemptRow).where(WebhookAttemptRow.event.in_(old)))
                await session.execute(delete(WebhookDeliveryRow).where(WebhookDeliveryRow.event.in_(old)))
                await session.execute(delete(WebhookEventRow).where(WebhookEventRow.id.in_(old)))
        return len(old)

    async def longest_due_ms(self) -> int:
        """Return for how long what is due for the longest time waits to be sent."""
        now_ms = self._clock.now_ms()
        due = _due(now_ms).subquery()
        async with self._database.reading() as session:
            since_ms = await session.scalar(select(func.min(due.c.due_at_ms)))
        return 0 if since_ms is None else now_ms - int(since_ms)


def _is_due(now_ms: int) -> ColumnElement[bool]:
    return (WebhookDeliveryRow.due_at_ms <= now_ms) & WebhookEndpointRow.enabled


def _due(now_ms: int) -> Select[int | None]:
    enabled = WebhookEndpointRow, WebhookEndpointRow.id == WebhookDeliveryRow.endpoint
    return select(WebhookDeliveryRow.due_at_ms).join(*enabled).where(_is_due(now_ms))


async def _in_turn(session: AsyncSession, now_ms: int, *, with_failing: bool) -> list[Candidate]:
    """Return the first due deliveries of each endpoint, the organizations in turn.

    Those to endpoints that fail are left out where there is no room for them: they are not to fill the list.
    """
    wanted = _is_due(now_ms) if with_failing else _is_due(now_ms) & WebhookEndpointRow.failing_since_ms.is_(None)
    place = func.row_number().over(
        partition_by=WebhookDeliveryRow.endpoint, order_by=(WebhookDeliveryRow.due_at_ms, WebhookDeliveryRow.id)
    )
    first = (
        select(
            WebhookDeliveryRow.id,
            WebhookDeliveryRow.organization,
            WebhookDeliveryRow.endpoint,
            WebhookDeliveryRow.due_at_ms,
            WebhookEndpointRow.failing_since_ms,
            place.label("place"),
        )
        .join(WebhookEndpointRow, WebhookEndpointRow.id == WebhookDeliveryRow.endpoint)
        .where(wanted)
        .subquery()
    )
    turn = func.row_number().over(partition_by=first.c.organization, order_by=(first.c.due_at_ms, first.c.id))
    query = (
        select(first.c.id, first.c.organization, first.c.endpoint, first.c.failing_since_ms.is_not(None))
        .where(first.c.place <= OF_ENDPOINT)
        .order_by(turn, first.c.due_at_ms, first.c.id)
        .limit(CANDIDATES)
    )
    return [Candidate(*row) for row in await session.execute(query)]


async def _under_way(session: AsyncSession, now_ms: int) -> list[Candidate]:
    leased = WebhookDeliveryRow.lease.is_not(None), WebhookDeliveryRow.due_at_ms > now_ms
    columns = WebhookDeliveryRow.id, WebhookDeliveryRow.organization, WebhookDeliveryRow.endpoint
    found = await session.execute(select(*columns).where(*leased))
    return [Candidate(number, organization, endpoint, False) for number, organization, endpoint in found]


def _attempt(sent: DueDelivery, answer: EndpointAnswer, at_ms: int) -> WebhookAttemptRow:
    return WebhookAttemptRow(
        organization=sent.organization,
        event=sent.message.id,
        endpoint=sent.endpoint,
        at_ms=at_ms,
        duration_ms=answer.duration_ms,
        status=answer.status,
        error=answer.error,
        answer=answer.text,
    )
