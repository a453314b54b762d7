"""Tells Redis the current revision of organizations, which the admit script compares: what was changed, is in force."""

from redis.asyncio import Redis

from tokenyard.core.ids import OrganizationId
from tokenyard.core.redis_keys import bucket_of, bucket_tag
from tokenyard.limits.scripts import ScriptName, Scripts


class RedisRevisions:
    def __init__(self, redis: Redis) -> None:
        self._scripts = Scripts(redis)

    async def raise_to(self, organization: OrganizationId, revision: int) -> None:
        """Make every `Principal` of an older revision useless; raises `redis.RedisError` where that is not known."""
        await self._scripts.run(ScriptName.REVISION, bucket_tag(bucket_of(organization)), [organization, revision])
