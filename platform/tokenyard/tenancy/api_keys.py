"""Makes and ends keys."""

from tokenyard.core.clock import Clock
from tokenyard.core.ids import ApiKeyId, OrganizationId, ProjectId, new_api_key_id
from tokenyard.core.principal import Limits, Role
from tokenyard.tenancy.keys import KeyHasher, new_secret
from tokenyard.tenancy.operator_store import TenancyOperatorStore
from tokenyard.tenancy.plans.rules import Rules
from tokenyard.tenancy.push import TenancyPush
from tokenyard.tenancy.store import NO_RULES, TenancyStore
from tokenyard.tenancy.tables import ApiKeyRow
from tokenyard.tenancy.views import OperatorKeyView, ProjectKeyDetails

BOOTSTRAP = ApiKeyId("bootstrap")
"""The actor of changes that the installation itself makes."""


class ApiKeys:
    """The one place that sees a key's secret: when it is made."""

    def __init__(
        self,
        *,
        store: TenancyStore,
        operator_store: TenancyOperatorStore,
        push: TenancyPush,
        hasher: KeyHasher,
        clock: Clock,
    ) -> None:
        self._store = store
        self._operator_store = operator_store
        self._push = push
        self._hasher = hasher
        self._clock = clock

    async def create(
        self,
        organization: OrganizationId,
        project: ProjectId,
        *,
        name: str,
        actor: ApiKeyId,
        limits: Limits | None = None,
        expires_in_s: int | None = None,
        rules: Rules = NO_RULES,
    ) -> tuple[ProjectKeyDetails, str]:
        """Make a tenant's key; return it and its secret, which is not stored anywhere.

        Raises:
            NotFound: the organization has no such live project.
            Conflict: it has as many keys as one may have.
        """
        row, secret = self._new(Role.TENANT, name, limits or Limits(), expires_in_s)
        row.project_id = project
        for attribute, value in rules.items():
            setattr(row, attribute, value(getattr(row, attribute)))
        return await self._store.add_key(organization, row, actor=actor), secret

    async def create_operator(
        self,
        *,
        name: str,
        actor: ApiKeyId,
        expires_in_s: int | None = None,
        addresses: list[str] | None = None,
    ) -> tuple[OperatorKeyView, str]:
        """Make an operator's key; return it and its secret, which is not stored anywhere."""
        row, secret = self._new(Role.OPERATOR, name, Limits(), expires_in_s)
        row.addresses = addresses
        return await self._operator_store.add_operator_key(row, actor=actor), secret

    async def revoke(self, organization: OrganizationId, key: str, *, actor: ApiKeyId) -> None:
        """End a key, everywhere within a second; while Redis is away, where nothing paid is let in, once it is back.

        Raises:
            NotFound: the organization has no such key.
        """
        await self._push.changed(await self._store.revoke_key(organization, key, actor=actor))

    async def revoke_operator(self, key: str, *, actor: ApiKeyId) -> None:
        """End an operator's key, everywhere within a second; while Redis is away, elsewhere after 30 s at the latest.

        Raises:
            NotFound: no operator's key has this id.
            Conflict: it is the last one.
        """
        await self._push.changed(await self._operator_store.revoke_operator_key(key, actor=actor))

    def _new(self, role: Role, name: str, limits: Limits, expires_in_s: int | None) -> tuple[ApiKeyRow, str]:
        now_ms = self._clock.now_ms()
        secret = new_secret(role)
        row = ApiKeyRow(
            id=new_api_key_id(),
            role=role,
            name=name,
            last4=secret[-4:],
            hash=self._hasher.hash(secret),
            pepper_version=self._hasher.version,
            limits=limits,
            model_limits={},
            created_at=now_ms // 1000,
            expires_at=None if expires_in_s is None else now_ms // 1000 + expires_in_s,
        )
        return row, secret
