"""What transactions change of an organization's models: written down in their commit, then told to every process."""

from collections.abc import Sequence

import msgspec
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.ids import OrganizationId
from tokenyard.storage.change_feed import publish
from tokenyard.storage.transactional_outbox import OutboxMessage, write_message

TOPIC = "catalog"
MODELS_CHANGED = "models"  # kind of the change feed


class ModelsChanged(msgspec.Struct, frozen=True):
    """What the organization may call has changed."""

    organization: OrganizationId


_ENCODER = msgspec.json.Encoder()
_DECODER: msgspec.json.Decoder[ModelsChanged] = msgspec.json.Decoder(ModelsChanged)


async def write_change(session: AsyncSession, change: ModelsChanged, at_ms: int) -> OutboxMessage:
    """Write the message in the transaction that makes the change."""
    return await write_message(session, TOPIC, _ENCODER.encode(change), at_ms)


class CatalogCarrier:
    """The outbox's handler."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def carry(self, payloads: Sequence[str]) -> None:
        """Tell every process; raises `redis.RedisError` where that is not done, or not known to be: carry again."""
        for organization in sorted({_DECODER.decode(payload).organization for payload in payloads}):
            await publish(self._redis, MODELS_CHANGED, organization)
