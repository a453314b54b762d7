"""What transactions change of cached keys: written down in their commit, then carried to Redis and to every process."""

from collections.abc import Sequence

import msgspec
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.ids import ApiKeyId, OrganizationId
from tokenyard.storage.change_feed import publish
from tokenyard.storage.transactional_outbox import OutboxMessage, write_message
from tokenyard.tenancy.ports import Revisions

TOPIC = "tenancy"
ORGANIZATION_CHANGED, OPERATOR_KEY_ENDED = "organization", "operator_key"  # kinds of the change feed


class OrganizationRevised(msgspec.Struct, frozen=True, tag="organization"):
    """A `Principal` of an older revision may be wrong."""

    organization: OrganizationId
    revision: int


class OperatorKeyEnded(msgspec.Struct, frozen=True, tag="operator_key"):
    key: ApiKeyId


_ENCODER = msgspec.json.Encoder()
_DECODER: msgspec.json.Decoder[OrganizationRevised | OperatorKeyEnded] = msgspec.json.Decoder(
    OrganizationRevised | OperatorKeyEnded
)


async def write_change(
    session: AsyncSession, change: OrganizationRevised | OperatorKeyEnded, at_ms: int
) -> OutboxMessage:
    """Write the message in the transaction that makes the change."""
    return await write_message(session, TOPIC, _ENCODER.encode(change), at_ms)


def read_change(payload: str) -> OrganizationRevised | OperatorKeyEnded:
    return _DECODER.decode(payload)


class TenancyCarrier:
    """The outbox's handler."""

    def __init__(self, redis: Redis, revisions: Revisions) -> None:
        self._redis = redis
        self._revisions = revisions

    async def carry(self, payloads: Sequence[str]) -> None:
        """First make outdated keys useless for all that costs money, then tell every process to look them up afresh.

        Raises:
            redis.RedisError: not done, or not known to be: carry again.
        """
        changes = [read_change(payload) for payload in payloads]
        newest: dict[OrganizationId, int] = {}
        for change in changes:
            if isinstance(change, OrganizationRevised):
                newest[change.organization] = max(change.revision, newest.get(change.organization, 0))
        for organization, revision in newest.items():
            await self._revisions.raise_to(organization, revision)
            await publish(self._redis, ORGANIZATION_CHANGED, organization)
        for change in changes:
            if isinstance(change, OperatorKeyEnded):
                await publish(self._redis, OPERATOR_KEY_ENDED, change.key)
