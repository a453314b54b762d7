"""Who issues the installation's invoices."""

import msgspec

from tokenyard.core.clock import Clock
from tokenyard.core.ids import ApiKeyId
from tokenyard.storage.database import AuditLog, Database
from tokenyard_billing.parties.party import Seller
from tokenyard_billing.parties.snapshots import stated
from tokenyard_billing.parties.stating import state
from tokenyard_billing.parties.tables import IssuerDetails


class StatedSeller(msgspec.Struct, frozen=True):
    """The issuer by its name in the settings, and its details; None where none were stated."""

    issuer: str
    details: Seller | None = None
    changed_at_ms: int | None = None


class IssuerOperatorStore:
    """`issuer` is its name in the settings."""

    def __init__(self, database: Database, audit: AuditLog, clock: Clock, issuer: str) -> None:
        self._database = database
        self._audit = audit
        self._clock = clock
        self._issuer = issuer

    async def get(self) -> StatedSeller:
        async with self._database.reading() as session:
            row = await session.get(IssuerDetails, self._issuer)
        if row is None:
            return StatedSeller(self._issuer)
        return StatedSeller(self._issuer, Seller.model_construct(**row.details), row.changed_at_ms)

    async def replace(self, details: Seller, *, actor: ApiKeyId) -> StatedSeller:
        """State them all anew: drafts show them at once, what was issued stays as it is."""
        now_ms = self._clock.now_ms()
        after = stated(details)
        async with self._database.transaction() as session:
            before = await state(session, IssuerDetails, self._issuer, after, now_ms)
            self._audit(
                *(session, None, actor, "issuer.details_changed", self._issuer),
                at=now_ms // 1000,
                details=after,
                before=before,
            )
        return StatedSeller(self._issuer, details, now_ms)
