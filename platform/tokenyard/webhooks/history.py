"""What was told to whom: events of one organization, their deliveries and attempts; and telling it again."""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import exists, select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.clock import Clock
from tokenyard.core.errors import Conflict, InvalidRequest, NotFound
from tokenyard.core.ids import ApiKeyId, OrganizationId
from tokenyard.storage import bulk
from tokenyard.storage.database import AuditLog, Database
from tokenyard.storage.paging import part_of_list
from tokenyard.webhooks.event_types import EVERY_TYPE
from tokenyard.webhooks.events import due_delivery
from tokenyard.webhooks.states import DeliveryState
from tokenyard.webhooks.store import find_endpoint
from tokenyard.webhooks.tables import WebhookAttemptRow, WebhookDeliveryRow, WebhookEndpointRow, WebhookEventRow

REPLAYED_AT_ONCE = 1000
MAX_ATTEMPTS = 200
"""So many are shown of an event, the last ones."""


class EventFilter(msgspec.Struct, frozen=True):
    """Which events are asked for; times are unix seconds, `until` is not among them."""

    kind: str | None = None
    since: int | None = None
    until: int | None = None
    endpoint: str | None = None
    state: DeliveryState | None = None


class EventHistory(msgspec.Struct, frozen=True):
    """An event, and what became of it at each endpoint."""

    event: WebhookEventRow
    deliveries: Sequence[WebhookDeliveryRow]
    attempts: Sequence[WebhookAttemptRow] = ()


class WebhookEventStore:
    def __init__(self, database: Database, clock: Clock, audit: AuditLog) -> None:
        self._database = database
        self._clock = clock
        self._audit = audit

    async def page(
        self, organization: OrganizationId, wanted: EventFilter, *, limit: int, after: str | None
    ) -> list[EventHistory]:
        """Return up to `limit` events that follow `after`, newest first; an unknown one raises `InvalidRequest`."""
        own = select(WebhookEventRow).where(WebhookEventRow.organization == organization)
        async with self._database.reading() as session:
            last = None if after is None else await session.scalar(own.where(WebhookEventRow.id == after))
            if after is not None and last is None:
                raise InvalidRequest(f"No such event: {after[:64]}", param="after")
            query = own.where(*_conditions(wanted))
            columns = WebhookEventRow.at_ms, WebhookEventRow.id
            events = (await session.scalars(part_of_list(query, *columns, after=last, limit=limit))).all()
            deliveries = await _deliveries(session, [event.id for event in events])
        return [EventHistory(event, [one for one in deliveries if one.event == event.id]) for event in events]

    async def get(self, organization: OrganizationId, event: str) -> EventHistory:
        """Return an event with its last attempts, the first one first."""
        async with self._database.reading() as session:
            row = await _find(session, organization, event)
            attempts = select(WebhookAttemptRow).where(WebhookAttemptRow.event == row.id)
            last = await session.scalars(attempts.order_by(WebhookAttemptRow.id.desc()).limit(MAX_ATTEMPTS))
            return EventHistory(row, await _deliveries(session, [row.id]), list(last.all())[::-1])

    async def resend(self, organization: OrganizationId, event: str, endpoint: str, *, actor: ApiKeyId) -> EventHistory:
        """Send an event to an endpoint now, as if it had never been tried, whatever types that wants.

        Raises:
            NotFound: there is no such event, or no such endpoint.
            Conflict: the endpoint is disabled, or it is being sent right now.
        """
        now_ms = self._clock.now_ms()
        async with self._database.transaction() as session:
            row = await _find(session, organization, event)
            target = await find_endpoint(session, organization, endpoint, to_change=True)
            _check_enabled(target)
            where = WebhookDeliveryRow.event == row.id, WebhookDeliveryRow.endpoint == target.id
            found = await session.scalar(select(WebhookDeliveryRow).where(*where).with_for_update())
            if found is not None and found.lease is not None and (found.due_at_ms or 0) > now_ms:
                raise Conflict("This event is being sent to the endpoint right now.")
            await _make_due(session, organization, [row.id], target.id, now_ms)
            self._note(session, target, actor, "webhook_event.resent", {"event": row.id})
        return await self.get(organization, event)

    async def replay(
        self, organization: OrganizationId, endpoint: str, *, since: int, actor: ApiKeyId
    ) -> tuple[int, bool]:
        """Send an endpoint all events of its types since then, in unix seconds, that it did not get.

        Those that there was no delivery of, as it was disabled or not there yet, are among them. At most
        `REPLAYED_AT_ONCE` at a time, the first ones first; return how many, and whether there are more.

        Raises:
            NotFound: there is no such endpoint.
            Conflict: it is disabled.
        """
        now_ms = self._clock.now_ms()
        async with self._database.transaction() as session:
            target = await find_endpoint(session, organization, endpoint, to_change=True)
            _check_enabled(target)
            settled = exists().where(
                WebhookDeliveryRow.event == WebhookEventRow.id,
                WebhookDeliveryRow.endpoint == target.id,
                WebhookDeliveryRow.state != DeliveryState.FAILED,
            )
            own = WebhookEventRow.organization == organization, WebhookEventRow.at_ms >= since * 1000
            query = select(WebhookEventRow.id).where(*own, ~settled)
            if EVERY_TYPE not in target.event_types:
                query = query.where(WebhookEventRow.type.in_(target.event_types))
            in_order = query.order_by(WebhookEventRow.at_ms, WebhookEventRow.id)
            found = (await session.scalars(in_order.limit(REPLAYED_AT_ONCE + 1))).all()
            again = found[:REPLAYED_AT_ONCE]
            await _make_due(session, organization, again, target.id, now_ms)
            details: dict[str, object] = {"since": since, "events": len(again)}
            self._note(session, target, actor, "webhook_endpoint.replayed", details)
        return len(again), len(found) > REPLAYED_AT_ONCE

    def _note(
        self,
        session: AsyncSession,
        endpoint: WebhookEndpointRow,
        actor: ApiKeyId,
        action: str,
        details: dict[str, object],
    ) -> None:
        owner = OrganizationId(endpoint.organization)
        self._audit(
            session, owner, actor, action, endpoint.id, at=self._clock.now_ms() // 1000, details=details, before={}
        )


def _conditions(wanted: EventFilter) -> list[Any]:
    conditions: list[Any] = []
    if wanted.kind is not None:
        conditions.append(WebhookEventRow.type == wanted.kind)
    if wanted.since is not None:
        conditions.append(WebhookEventRow.at_ms >= wanted.since * 1000)
    if wanted.until is not None:
        conditions.append(WebhookEventRow.at_ms < wanted.until * 1000)
    if wanted.endpoint is not None or wanted.state is not None:
        told = [WebhookDeliveryRow.event == WebhookEventRow.id]
        if wanted.endpoint is not None:
            told.append(WebhookDeliveryRow.endpoint == wanted.endpoint)
        if wanted.state is not None:
            told.append(WebhookDeliveryRow.state == wanted.state)
        conditions.append(exists().where(*told))
    return conditions


async def _deliveries(session: AsyncSession, events: Sequence[str]) -> Sequence[WebhookDeliveryRow]:
    query = select(WebhookDeliveryRow).where(WebhookDeliveryRow.event.in_(events))
    return (await session.scalars(query.order_by(WebhookDeliveryRow.id))).all()


async def _find(session: AsyncSession, organization: OrganizationId, event: str) -> WebhookEventRow:
    where = WebhookEventRow.id == event, WebhookEventRow.organization == organization
    row = await session.scalar(select(WebhookEventRow).where(*where))
    if row is None:
        raise NotFound(f"No such event: {event[:64]}", param="event_id")
    return row


def _check_enabled(endpoint: WebhookEndpointRow) -> None:
    if not endpoint.enabled:
        raise Conflict(f"The webhook endpoint {endpoint.id} is disabled. Enable it first.")


async def _make_due(
    session: AsyncSession, organization: OrganizationId, events: Sequence[str], endpoint: str, now_ms: int
) -> None:
    """Let events be sent now; what was tried before begins anew. None of them is under way."""
    if not events:
        return
    rows = [due_delivery(organization, event, endpoint, now_ms) for event in events]
    statement = bulk.upsert(session, WebhookDeliveryRow)
    anew = {name: statement.excluded[name] for name in ("state", "attempts", "due_at_ms", "lease")}
    await (await session.connection()).execute(
        statement.on_conflict_do_update(index_elements=["event", "endpoint"], set_=anew), rows
    )
