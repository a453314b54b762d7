"""What tenancy needs from others."""

from collections.abc import Mapping
from typing import Protocol

from tokenyard.core.ids import OrganizationId


class Revisions(Protocol):
    """What Redis knows of the revisions of organizations, which admission compares with its caller's (limits)."""

    async def raise_to(self, organization: OrganizationId, revision: int) -> None:
        """Make every `Principal` of an older revision useless; raises `redis.RedisError` where that is not known."""
        ...


class FineTunes(Protocol):
    """The fine-tuned models of an organization, and checkpoints of them (catalog)."""

    async def fine_tunes(self, organization: OrganizationId) -> Mapping[str, str]:
        """Return the names under which they can be called now, each with the proper name of what answers."""
        ...
