"""Creates organizations and sees to it that every other slice hears of each."""

import logging

from tokenyard.core.ids import ApiKeyId
from tokenyard.core.principal import Limits
from tokenyard.tenancy.operator_store import TenancyOperatorStore
from tokenyard.tenancy.ports import NewOrganization
from tokenyard.tenancy.views import Organization
from tokenyard.web.loops import Loop

_LOG = logging.getLogger(__name__)
ANNOUNCE_S = 5.0
ANNOUNCE_BATCH = 100


class Organizations:
    """Creates organizations. What could not be announced at once is announced by the worker's loop."""

    def __init__(self, store: TenancyOperatorStore, new_organization: NewOrganization) -> None:
        self._store = store
        self._new_organization = new_organization

    async def create(
        self,
        *,
        name: str,
        slug: str,
        actor: ApiKeyId,
        weight: int = 1,
        timezone: str = "UTC",
        limits: Limits | None = None,
    ) -> Organization:
        """Create an organization with its default project.

        Raises:
            Conflict: the slug was given before.
        """
        organization = await self._store.create_organization(
            name=name, slug=slug, weight=weight, timezone=timezone, limits=limits or Limits(), actor=actor
        )
        try:
            await self._announce(organization)
        except Exception:  # it exists whatever happens here, and the worker announces it again
            _LOG.exception("organization %s is not announced yet", organization.id)
        return organization

    async def announce_all(self) -> None:
        """Announce what was not announced when it was created."""
        for organization in await self._store.unannounced(ANNOUNCE_BATCH):
            await self._announce(await self._store.organization(organization))

    def loop(self) -> Loop:
        """Return the worker's loop that announces."""
        return Loop("new-organizations", self.announce_all, ANNOUNCE_S)

    async def _announce(self, organization: Organization) -> None:
        await self._new_organization.created(organization.id)
        await self._store.announced(organization.id)
