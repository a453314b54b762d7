"""Disables an endpoint, by whoever decides it: nothing more is sent, and the audit log says why."""

from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.ids import ApiKeyId, OrganizationId
from tokenyard.storage.database import AuditLog
from tokenyard.webhooks.states import DeliveryState
from tokenyard.webhooks.tables import WebhookDeliveryRow, WebhookEndpointRow

DISABLED = "webhook_endpoint.disabled"


async def disable(
    session: AsyncSession, row: WebhookEndpointRow, reason: str | None, *, actor: ApiKeyId, audit: AuditLog, now_ms: int
) -> None:
    """Disable an endpoint that is locked. What waits for it fails; what is under way is not tried again."""
    row.enabled, row.disabled_reason, row.updated_at_ms = False, reason, now_ms
    waits = (
        WebhookDeliveryRow.endpoint == row.id,
        WebhookDeliveryRow.state == DeliveryState.WAITING,
        WebhookDeliveryRow.lease.is_(None),
    )
    await session.execute(
        update(WebhookDeliveryRow)
        .where(*waits)
        .values(state=DeliveryState.FAILED, due_at_ms=None)
        .execution_options(synchronize_session=False)
    )
    audit(
        *(session, OrganizationId(row.organization), actor, DISABLED, row.id),
        at=now_ms // 1000,
        details={"enabled": False, "reason": reason},
        before={"enabled": True},
    )
