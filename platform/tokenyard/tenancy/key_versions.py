"""Tells Redis the current version of keys, which the admit script compares: a revoked key is dead at once.

SQL is the truth. A new key's version is written before its row, an ended key's after its row; the loop repeats
what changed lately, so neither a crash between the two nor a Redis that lost its last second revives a key.
"""

from collections.abc import Sequence

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tokenyard.core.errors import Unavailable
from tokenyard.core.redis_keys import bucket_of, key_version
from tokenyard.tenancy.keys import KeyVersion

BATCH = 500

# Versions only grow, in whatever order their writers arrive.
_RAISE = """
local known = tonumber(redis.call('GET', KEYS[1]) or '0')
if tonumber(ARGV[1]) > known then redis.call('SET', KEYS[1], ARGV[1]) end
return 1
"""


class KeyVersions:
    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._raise = redis.register_script(_RAISE)

    async def publish(self, versions: Sequence[KeyVersion]) -> None:
        """Make every older version of these keys invalid for all that costs money.

        Raises:
            Unavailable: Redis does not answer; SQL is right all the same, and the loop will repeat it.
        """
        try:
            for start in range(0, len(versions), BATCH):
                async with self._redis.pipeline(transaction=False) as pipe:
                    for version in versions[start : start + BATCH]:
                        name = key_version(bucket_of(version.organization), version.key)
                        await self._raise(keys=[name], args=[version.version], client=pipe)
                    await pipe.execute()
        except RedisError as error:
            raise Unavailable("The gateways could not be told at once. Please send the request again.") from error
