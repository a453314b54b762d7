"""Creates organizations and sees to it that every other slice hears of each."""

import logging
from collections.abc import Awaitable, Callable

from tokenyard.core.ids import ApiKeyId, OrganizationId
from tokenyard.core.principal import Limits
from tokenyard.tenancy.operator_store import TenancyOperatorStore
from tokenyard.tenancy.plans.rules import Rules
from tokenyard.tenancy.store import NO_RULES
from tokenyard.tenancy.views import OrganizationView

_LOG = logging.getLogger(__name__)
ANNOUNCE_BATCH = 100


class Organizations:
    """Creates organizations. What could not be announced at once is announced by the worker's loop."""

    def __init__(self, store: TenancyOperatorStore, tell: Callable[[OrganizationId], Awaitable[None]]) -> None:
        """Take what sets up other slices for a new organization; told again of the same one, it changes nothing."""
        self._store = store
        self._tell = tell

    async def create(
        self,
        *,
        name: str,
        slug: str,
        actor: ApiKeyId,
        limits: Limits | None = None,
        plan: str | None = None,
        rules: Rules = NO_RULES,
    ) -> OrganizationView:
        organization = await self._store.create_organization(
            name=name, slug=slug, limits=limits or Limits(), actor=actor, plan=plan, rules=rules
        )
        try:
            await self._announce(organization.id)
        except Exception:  # it exists whatever happens here, and the worker announces it again
            _LOG.exception("organization %s is not announced yet", organization.id)
        return organization

    async def announce_all(self) -> None:
        """Announce what was not announced when it was created."""
        for organization in await self._store.unannounced(ANNOUNCE_BATCH):
            await self._announce(organization)

    async def _announce(self, organization: OrganizationId) -> None:
        await self._tell(organization)
        await self._store.announced(organization)
