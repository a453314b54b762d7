"""Makes a committed change of models known: to this process at once, and to all others within a second."""

from collections.abc import Sequence

from tokenyard.catalog.models import ModelCatalog
from tokenyard.core.ids import OrganizationId
from tokenyard.storage.transactional_outbox import OutboxMessage, TransactionalOutbox


class CatalogPush:
    def __init__(self, models: ModelCatalog, outbox: TransactionalOutbox) -> None:
        self._models = models
        self._outbox = outbox

    async def changed(self, organization: OrganizationId, messages: Sequence[OutboxMessage]) -> None:
        """Take what the store wrote to the outbox. While Redis is away only this process knows of it."""
        await self._models.organization_changed(organization)
        await self._outbox.try_to_carry(messages)
