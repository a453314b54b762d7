"""Writes an event in the transaction of what happened: it is there exactly if the change is."""

from collections.abc import Mapping

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.ids import OrganizationId, random_text
from tokenyard.storage import bulk
from tokenyard.webhooks.event_types import EVENT_TYPES, subscribes
from tokenyard.webhooks.states import DeliveryState
from tokenyard.webhooks.tables import WebhookDeliveryRow, WebhookEndpointRow, WebhookEventRow


async def write_event(
    session: AsyncSession, organization: OrganizationId, kind: str, data: Mapping[str, object], *, at_ms: int
) -> None:
    """Write an event of a type of `EVENT_TYPES`, due at once for every endpoint that wants it.

    Raises:
        ValueError: a bug: there is no such type.
    """
    if kind not in EVENT_TYPES:
        raise ValueError(f"no such type of event: {kind}")
    event = f"evt_{random_text()}"
    row = {"id": event, "organization": organization, "type": kind, "data": dict(data), "at_ms": at_ms}
    await bulk.insert(session, WebhookEventRow, [row])
    columns = WebhookEndpointRow.id, WebhookEndpointRow.event_types
    enabled = WebhookEndpointRow.organization == organization, WebhookEndpointRow.enabled
    found = (await session.execute(select(*columns).where(*enabled))).all()
    to_tell = [endpoint for endpoint, wanted in found if subscribes(wanted, kind)]
    await bulk.insert(session, WebhookDeliveryRow, [due_delivery(organization, event, one, at_ms) for one in to_tell])


def due_delivery(organization: OrganizationId, event: str, endpoint: str, at_ms: int) -> dict[str, object]:
    """Return the row of a delivery that was not tried yet."""
    return {
        "organization": organization,
        "event": event,
        "endpoint": endpoint,
        "state": DeliveryState.WAITING,
        "attempts": 0,
        "due_at_ms": at_ms,
        "lease": None,
    }
