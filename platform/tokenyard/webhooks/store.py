"""Webhook endpoints of one organization at a time; another's are as if they were not there."""

from collections.abc import Sequence

import msgspec
from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.clock import Clock
from tokenyard.core.errors import Conflict, InvalidRequest, NotFound
from tokenyard.core.ids import ApiKeyId, OrganizationId, random_text
from tokenyard.storage.database import AuditLog, Database, organization_lock
from tokenyard.storage.encryption import Cipher
from tokenyard.storage.paging import part_of_list
from tokenyard.webhooks.disabling import disable
from tokenyard.webhooks.signing_secrets import FORMER_MS, give_secret, secrets_of
from tokenyard.webhooks.tables import WebhookAttemptRow, WebhookDeliveryRow, WebhookEndpointRow
from tokenyard.webhooks.targets import WebhookTargets

MAX_ENDPOINTS = 20


class EndpointChange(msgspec.Struct, frozen=True):
    """What is to be another; None stays as it is."""

    name: str | None = None
    url: str | None = None
    event_types: Sequence[str] | None = None
    enabled: bool | None = None


class WebhookEndpointStore:
    """Every change is noted in the audit log."""

    def __init__(
        self, database: Database, clock: Clock, cipher: Cipher, targets: WebhookTargets, audit: AuditLog
    ) -> None:
        self._database = database
        self._clock = clock
        self._cipher = cipher
        self._targets = targets
        self._audit = audit

    async def create(
        self, organization: OrganizationId, *, name: str, url: str, event_types: Sequence[str], actor: ApiKeyId
    ) -> tuple[WebhookEndpointRow, str]:
        """Return a new endpoint and its secret, which is never shown again.

        Raises:
            InvalidRequest: webhooks may not go to this URL.
            Conflict: the organization has too many.
        """
        self._targets.check_url(url)
        now_ms = self._clock.now_ms()
        row = WebhookEndpointRow(
            id=f"we_{random_text()}",
            organization=organization,
            name=name,
            url=url,
            event_types=list(event_types),
            enabled=True,
            created_at_ms=now_ms,
            updated_at_ms=now_ms,
        )
        secret = give_secret(row, self._cipher)
        async with self._database.transaction() as session:
            await organization_lock(session, organization)
            own = select(func.count()).where(WebhookEndpointRow.organization == organization)
            if (await session.scalar(own) or 0) >= MAX_ENDPOINTS:
                raise Conflict(f"An organization has at most {MAX_ENDPOINTS} webhook endpoints.")
            session.add(row)
            self._note(session, row, actor, "created", after=_told(row))
        return row, secret

    async def get(self, organization: OrganizationId, endpoint: str) -> WebhookEndpointRow:
        async with self._database.reading() as session:
            return await find_endpoint(session, organization, endpoint)

    async def with_secrets(self, organization: OrganizationId, endpoint: str) -> tuple[WebhookEndpointRow, list[str]]:
        """Return an endpoint, and the secrets that sign for it now."""
        row = await self.get(organization, endpoint)
        return row, secrets_of(row, self._cipher, self._clock.now_ms())

    async def page(
        self, organization: OrganizationId, *, limit: int, after: str | None
    ) -> Sequence[WebhookEndpointRow]:
        """Return up to `limit` endpoints that follow `after`, newest first."""
        query = select(WebhookEndpointRow).where(WebhookEndpointRow.organization == organization)
        async with self._database.reading() as session:
            last = None if after is None else await session.scalar(query.where(WebhookEndpointRow.id == after))
            if after is not None and last is None:
                raise InvalidRequest(f"No such webhook endpoint: {after[:64]}", param="after")
            columns = WebhookEndpointRow.created_at_ms, WebhookEndpointRow.id
            return (await session.scalars(part_of_list(query, *columns, after=last, limit=limit))).all()

    async def change(
        self, organization: OrganizationId, endpoint: str, change: EndpointChange, *, actor: ApiKeyId, reason: str = ""
    ) -> WebhookEndpointRow:
        """Change an endpoint; `reason` is shown where it is disabled by an operator. Raises as `create`."""
        if change.url is not None:
            self._targets.check_url(change.url)
        now_ms = self._clock.now_ms()
        async with self._database.transaction() as session:
            row = await find_endpoint(session, organization, endpoint, to_change=True)
            before = _told(row)
            for name in ("name", "url", "event_types"):
                if (value := getattr(change, name)) is not None:
                    setattr(row, name, list(value) if name == "event_types" else value)
            if before != _told(row):
                row.updated_at_ms = now_ms
                if before["url"] != row.url:
                    row.failing_since_ms = None  # what the former one did says nothing of it
                self._note(session, row, actor, "updated", after=_told(row), before=before)
            if change.enabled and not row.enabled:
                row.enabled, row.disabled_reason, row.failing_since_ms, row.updated_at_ms = True, None, None, now_ms
                self._note(session, row, actor, "enabled", after={"enabled": True}, before={"enabled": False})
            if change.enabled is False and row.enabled:
                await disable(session, row, reason or None, actor=actor, audit=self._audit, now_ms=now_ms)
            return row

    async def rotate(
        self, organization: OrganizationId, endpoint: str, *, keep_former: bool, actor: ApiKeyId
    ) -> tuple[WebhookEndpointRow, str]:
        """Return the endpoint and its new secret; the former one signs too for a day where it is kept."""
        now_ms = self._clock.now_ms()
        async with self._database.transaction() as session:
            row = await find_endpoint(session, organization, endpoint, to_change=True)
            former_hint = row.secret_hint
            secret = give_secret(row, self._cipher, former_until_ms=now_ms + FORMER_MS if keep_former else None)
            row.updated_at_ms = now_ms
            after: dict[str, object] = {"signing_secret_hint": row.secret_hint, "former_is_kept": keep_former}
            before: dict[str, object] = {"signing_secret_hint": former_hint}
            self._note(session, row, actor, "secret_rotated", after=after, before=before)
        return row, secret

    async def delete(self, organization: OrganizationId, endpoint: str, *, actor: ApiKeyId) -> None:
        """Delete an endpoint with all that was noted of its deliveries; events stay."""
        async with self._database.transaction() as session:
            row = await find_endpoint(session, organization, endpoint, to_change=True)
            await session.execute(delete(WebhookAttemptRow).where(WebhookAttemptRow.endpoint == row.id))
            await session.execute(delete(WebhookDeliveryRow).where(WebhookDeliveryRow.endpoint == row.id))
            await session.delete(row)
            self._note(session, row, actor, "deleted", before=_told(row))

    def _note(
        self,
        session: AsyncSession,
        row: WebhookEndpointRow,
        actor: ApiKeyId,
        what: str,
        *,
        after: dict[str, object] | None = None,
        before: dict[str, object] | None = None,
    ) -> None:
        self._audit(
            *(session, OrganizationId(row.organization), actor, f"webhook_endpoint.{what}", row.id),
            at=self._clock.now_ms() // 1000,
            details=after or {},
            before=before or {},
        )


async def find_endpoint(
    session: AsyncSession, organization: OrganizationId, endpoint: str, *, to_change: bool = False
) -> WebhookEndpointRow:
    """Return an organization's endpoint, locked where it is to be changed; else raise `NotFound`."""
    query = select(WebhookEndpointRow).where(
        WebhookEndpointRow.id == endpoint, WebhookEndpointRow.organization == organization
    )
    row = await session.scalar(query.with_for_update() if to_change else query)
    if row is None:
        raise NotFound(f"No such webhook endpoint: {endpoint[:64]}", param="webhook_endpoint_id")
    return row


def _told(row: WebhookEndpointRow) -> dict[str, object]:
    """Return what the audit log tells of an endpoint."""
    return {"name": row.name, "url": row.url, "event_types": list(row.event_types)}
