"""What tenancy needs from others."""

from typing import Protocol

from tokenyard.core.ids import OrganizationId


class NewOrganization(Protocol):
    """Is told of every new organization: billing opens its accounts and grants the opening credit."""

    async def created(self, organization: OrganizationId) -> None:
        """Set up what a new organization needs; told again, it changes nothing."""
        ...
