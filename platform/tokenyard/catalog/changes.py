"""What transactions change of an organization's models: written down in their commit, then told to every process."""

from collections.abc import Sequence

import msgspec
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.catalog.tables import RevisionRow
from tokenyard.core.ids import ApiKeyId, OrganizationId
from tokenyard.storage.bulk import add_up
from tokenyard.storage.change_feed import publish
from tokenyard.storage.transactional_outbox import OutboxMessage, write_message

TOPIC = "catalog"
WORKER = ApiKeyId("worker")  # the actor of changes that no key asked for
MODELS_CHANGED = "models"  # kind of the change feed


class ModelsChanged(msgspec.Struct, frozen=True):
    """What the organization may call has changed."""

    organization: OrganizationId


_ENCODER = msgspec.json.Encoder()
_DECODER: msgspec.json.Decoder[ModelsChanged] = msgspec.json.Decoder(ModelsChanged)


async def write_change(session: AsyncSession, change: ModelsChanged, at_ms: int) -> OutboxMessage:
    """Write the message in the transaction that makes the change."""
    return await write_message(session, TOPIC, _ENCODER.encode(change), at_ms)


async def models_changed(session: AsyncSession, organization: OrganizationId, at_ms: int) -> OutboxMessage:
    """Tell caches, in the transaction of the change itself, that what the organization may call has changed."""
    await add_up(session, RevisionRow, [{"organization": organization, "revision": 1}], add=["revision"])
    return await write_change(session, ModelsChanged(organization), at_ms)


class CatalogCarrier:
    """The outbox's handler."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def carry(self, payloads: Sequence[str]) -> None:
        """Tell every process; raises `redis.RedisError` where that is not done, or not known to be: carry again."""
        for organization in sorted({_DECODER.decode(payload).organization for payload in payloads}):
            await publish(self._redis, MODELS_CHANGED, organization)
