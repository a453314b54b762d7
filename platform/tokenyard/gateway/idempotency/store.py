"""Keeps in Redis what runs under an idempotency key, and what came of it."""

import asyncio
from importlib import resources
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tokenyard.core.ids import OrganizationId, RequestId
from tokenyard.core.redis_keys import bucket_of, idempotent_bytes, idempotent_reply, idempotent_running, revision

MAX_BYTES_OF_ONE = 16 * 1024 * 1024
CALLS_AT_ONCE = 16  # each takes a connection
CALL_LIMIT_S = 2.5

_SCRIPT = "replies.lua"


class KeyedRequest(NamedTuple):
    """A request under an idempotency key: what the key is kept by, its body's fingerprint, and the request's own id."""

    name: str
    fingerprint: bytes
    request: RequestId


class IdempotencyStore:
    """One organization never keeps more than `max_bytes`; a request that runs counts as 64 KiB of it.

    Every method raises `RedisError` where Redis does not answer.
    """

    def __init__(self, redis: Redis, *, lease_ms: int, max_bytes: int = MAX_BYTES_OF_ONE) -> None:
        self._script: Any = redis.register_script(resources.files(__package__).joinpath(_SCRIPT).read_text("utf-8"))
        self._lease_ms = lease_ms
        self._max_bytes = max_bytes
        self._calls = asyncio.Semaphore(CALLS_AT_ONCE)

    async def claim(
        self, organization: OrganizationId, keyed: KeyedRequest, *, revision: int, only_kept: bool
    ) -> tuple[str, Any]:
        """Take the key for a lease where it is free; return what was found (`replies.lua` says what), and its detail.

        `revision` is the caller's. With `only_kept` the key is never taken.
        """
        found = await self._run(
            "claim", organization, keyed, self._lease_ms, self._max_bytes, revision, "1" if only_kept else ""
        )
        return found[0].decode(), found[1] if len(found) > 1 else None

    async def renew(self, organization: OrganizationId, keyed: KeyedRequest) -> None:
        """Prolong the lease; one that Redis lost is taken again."""
        await self._run("renew", organization, keyed, self._lease_ms)

    async def keep(self, organization: OrganizationId, keyed: KeyedRequest, sealed: bytes) -> str:
        """Keep the reply for 24 hours, or with b"" that there was one: return `kept`, `gone` or `lost`."""
        outcome: bytes = await self._run("keep", organization, keyed, self._max_bytes, sealed)
        return outcome.decode()

    async def forget(self, organization: OrganizationId, keyed: KeyedRequest) -> None:
        """Free the key, as if the request had never come."""
        await self._run("forget", organization, keyed)

    async def _run(
        self, command: str, organization: OrganizationId, keyed: KeyedRequest, *arguments: bytes | str | int
    ) -> Any:
        bucket = bucket_of(organization)
        keys = (
            idempotent_reply(bucket, organization, keyed.name),
            idempotent_running(bucket, organization),
            idempotent_bytes(bucket, organization),
            revision(bucket, organization),
        )
        try:
            async with asyncio.timeout(CALL_LIMIT_S), self._calls:
                return await self._script(keys=keys, args=(command, keyed.request, keyed.fingerprint, *arguments))
        except (TimeoutError, OSError) as error:
            raise RedisError(f"Redis cannot be reached: {type(error).__name__}") from error
