"""Puts usage events on their organization's stream, on the way to the ledger."""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from redis.asyncio import Redis

from tokenyard.core.ids import OrganizationId
from tokenyard.core.redis_keys import bucket_of, usage_stream
from tokenyard.metering.events import ReplicaReported, UsageEvent, decode_event, encode_event, organization_of
from tokenyard.metering.outbox import Outbox

FIELD = b"event"

USAGE_TOPIC = "usage"
"""Messages of the transactional outbox that are usage events, for what ends in SQL."""


async def emit(redis: Redis, organization: OrganizationId, event: UsageEvent) -> None:
    """Append `event`, as durably as Redis' file is. After a `RedisError` emit again: consumers drop duplicates."""
    await redis.xadd(usage_stream(bucket_of(organization)), {FIELD: encode_event(event)})


def report_outbox(redis: Redis, folder: Path) -> Outbox[ReplicaReported]:
    """Return an outbox that emits replicas' reports; its spool is in `folder`."""

    async def deliver(report: ReplicaReported) -> None:
        await emit(redis, report.claims.organization, report)

    return Outbox(redis, folder, ReplicaReported, deliver)


def usage_carrier(redis: Redis) -> Callable[[Sequence[str]], Awaitable[None]]:
    """Return what carries messages of `USAGE_TOPIC` to their streams; raises `redis.RedisError` where it cannot."""

    async def carry(payloads: Sequence[str]) -> None:
        for payload in payloads:
            event = decode_event(payload.encode())
            await emit(redis, organization_of(event), event)

    return carry
