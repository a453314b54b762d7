"""What transactions change of cached keys: written down in their commit, then carried to Redis and to every process."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

import msgspec
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.ids import ApiKeyId, OrganizationId, PlanId
from tokenyard.storage.change_feed import publish
from tokenyard.storage.transactional_outbox import OutboxMessage, write_message
from tokenyard.tenancy.ports import Revisions

TOPIC = "tenancy"
# Kinds of the change feed.
ORGANIZATION_CHANGED, PLAN_CHANGED, OPERATOR_KEY_ENDED = "organization", "plan", "operator_key"
AT_ONCE = 100  # organizations whose revisions are told together


class OrganizationRevised(msgspec.Struct, frozen=True, tag="organization"):
    """A `Principal` of an older revision may be wrong."""

    organization: OrganizationId
    revision: int


class PlanRevised(msgspec.Struct, frozen=True, tag="plan"):
    """So may it be of the organizations on this plan, by their ids."""

    plan: PlanId
    revisions: dict[OrganizationId, int]


class OperatorKeyEnded(msgspec.Struct, frozen=True, tag="operator_key"):
    key: ApiKeyId


TenancyChange: TypeAlias = OrganizationRevised | PlanRevised | OperatorKeyEnded

_ENCODER = msgspec.json.Encoder()
_DECODER: msgspec.json.Decoder[TenancyChange] = msgspec.json.Decoder(TenancyChange)


async def write_change(session: AsyncSession, change: TenancyChange, at_ms: int) -> OutboxMessage:
    """Write the message in the transaction that makes the change."""
    return await write_message(session, TOPIC, _ENCODER.encode(change), at_ms)


def read_change(payload: str) -> TenancyChange:
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
        await self._raise_revisions(_newest(changes))
        for kind, subject in dict.fromkeys(map(_subject, changes)):
            await publish(self._redis, kind, subject)

    async def _raise_revisions(self, revisions: Mapping[OrganizationId, int]) -> None:
        waiting = list(revisions.items())
        for start in range(0, len(waiting), AT_ONCE):
            part = waiting[start : start + AT_ONCE]
            await asyncio.gather(*(self._revisions.raise_to(owner, revision) for owner, revision in part))


def _newest(changes: Iterable[TenancyChange]) -> dict[OrganizationId, int]:
    newest: dict[OrganizationId, int] = {}
    for change in changes:
        match change:
            case OrganizationRevised(organization, revision):
                revisions = {organization: revision}
            case PlanRevised(_, revisions):
                pass
            case OperatorKeyEnded():
                revisions = {}
        for owner, revision in revisions.items():
            newest[owner] = max(revision, newest.get(owner, 0))
    return newest


def _subject(change: TenancyChange) -> tuple[str, str]:
    """Return what the change feed is told of: the kind, and which one."""
    match change:
        case OrganizationRevised(organization):
            return ORGANIZATION_CHANGED, organization
        case PlanRevised(plan):
            return PLAN_CHANGED, plan
        case OperatorKeyEnded(key):
            return OPERATOR_KEY_ENDED, key
