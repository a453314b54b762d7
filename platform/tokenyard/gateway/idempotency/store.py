"""Keeps in Redis what runs under an idempotency key, and what came of it."""

import asyncio
from enum import StrEnum
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


class KeyState(StrEnum):
    """What a claim finds under a key (`replies.lua`)."""

    CLAIMED = "claimed"
    KEPT = "kept"
    GONE = "gone"
    RUNNING = "running"
    OTHER_BODY = "other_body"
    UNKNOWN = "unknown"
    OUTDATED = "outdated"
    FULL = "full"
    SCARCE = "scarce"


class KeyClaim(NamedTuple):
    """`reply` is encrypted, where one is kept; `ms` is how long the request has run, or until there may be room."""

    state: KeyState
    reply: bytes = b""
    ms: int = 0


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
    ) -> KeyClaim:
        """Take the key for a lease where it is free; return what was found.

        `revision` is the caller's. With `only_kept` the key is never taken.
        """
        state, *detail = await self._run(
            "claim", organization, keyed, self._lease_ms, self._max_bytes, revision, "1" if only_kept else ""
        )
        found = KeyState(state.decode())
        if not detail:
            return KeyClaim(found)
        return KeyClaim(found, reply=detail[0]) if found is KeyState.KEPT else KeyClaim(found, ms=detail[0])

    async def renew(self, organization: OrganizationId, keyed: KeyedRequest) -> None:
        """Prolong the lease; one that Redis lost is taken again."""
        await self._run("renew", organization, keyed, self._lease_ms)

    async def keep(self, organization: OrganizationId, keyed: KeyedRequest, encrypted: bytes) -> str:
        """Keep the reply for 24 hours, or with b"" that there was one: return `kept`, `gone` or `lost`."""
        outcome: bytes = await self._run("keep", organization, keyed, self._max_bytes, encrypted)
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
