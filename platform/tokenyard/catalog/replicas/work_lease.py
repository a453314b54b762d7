"""One process at a time: a lease in Redis. It saves work; nothing breaks where two hold it for a moment."""

import secrets

from redis.asyncio import Redis

from tokenyard.core.redis_keys import work_lease

_TAKE = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""


class WorkLease:
    """Held while it is taken again before `lease_ms` are over."""

    def __init__(self, redis: Redis, name: str, lease_ms: int) -> None:
        self._key = work_lease(name)
        self._holder = secrets.token_hex(8)
        self._lease_ms = lease_ms
        self._take = redis.register_script(_TAKE)

    async def take(self) -> bool:
        """Take or keep the lease; False where another process holds it, `redis.RedisError` where that is not known."""
        return bool(await self._take(keys=[self._key], args=[self._holder, self._lease_ms]))
