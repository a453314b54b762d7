"""What tenancy needs from others."""

from typing import Protocol

from tokenyard.core.ids import OrganizationId


class Revisions(Protocol):
    """What Redis knows of the revisions of organizations, which admission compares with its caller's (limits)."""

    async def raise_to(self, organization: OrganizationId, revision: int) -> None:
        """Make every `Principal` of an older revision useless; raises `redis.RedisError` where that is not known."""
        ...
