"""One organization's billing details."""

import msgspec

from tokenyard.core.clock import Clock
from tokenyard.core.ids import ApiKeyId, OrganizationId
from tokenyard.storage.database import AuditLog, Database
from tokenyard_billing.parties.party import Buyer
from tokenyard_billing.parties.snapshots import stated
from tokenyard_billing.parties.stating import state
from tokenyard_billing.parties.tables import BillingDetails


class StatedBuyer(msgspec.Struct, frozen=True):
    """An organization's details and when they were last changed; None where it has stated none."""

    organization: OrganizationId
    details: Buyer | None = None
    changed_at_ms: int | None = None


class BillingDetailsStore:
    def __init__(self, database: Database, audit: AuditLog, clock: Clock) -> None:
        self._database = database
        self._audit = audit
        self._clock = clock

    async def get(self, organization: OrganizationId) -> StatedBuyer:
        async with self._database.reading() as session:
            row = await session.get(BillingDetails, organization)
        if row is None:
            return StatedBuyer(organization)
        return StatedBuyer(organization, Buyer.model_construct(**row.details), row.changed_at_ms)

    async def replace(self, organization: OrganizationId, details: Buyer, *, actor: ApiKeyId) -> StatedBuyer:
        """State them all anew: drafts show them at once, what was issued stays as it is."""
        now_ms = self._clock.now_ms()
        after = stated(details)
        async with self._database.transaction() as session:
            before = await state(session, BillingDetails, organization, after, now_ms)
            self._audit(
                *(session, organization, actor, "organization.billing_details_changed", organization),
                at=now_ms // 1000,
                details=after,
                before=before,
            )
        return StatedBuyer(organization, details, now_ms)
