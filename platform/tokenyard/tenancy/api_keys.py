"""Makes and ends keys: in SQL, in Redis and in this process's cache, in the order that never revives a dead key."""

from tokenyard.core.clock import Clock
from tokenyard.core.ids import ApiKeyId, OrganizationId, ProjectId, new_api_key_id
from tokenyard.core.principal import Limits, Role
from tokenyard.tenancy.authenticator import KeyAuthenticator
from tokenyard.tenancy.key_versions import KeyVersions
from tokenyard.tenancy.keys import KeyHasher, KeyVersion, new_secret
from tokenyard.tenancy.operator_store import TenancyOperatorStore
from tokenyard.tenancy.store import TenancyStore
from tokenyard.tenancy.tables import ApiKeyRow
from tokenyard.tenancy.views import OperatorKeyView, ProjectKeyDetails

FIRST_VERSION = 1
BOOTSTRAP = ApiKeyId("bootstrap")
"""The actor of changes that the installation itself makes."""


class ApiKeys:
    """The one place that sees a key's secret: when it is made."""

    def __init__(
        self,
        *,
        store: TenancyStore,
        operator_store: TenancyOperatorStore,
        versions: KeyVersions,
        hasher: KeyHasher,
        clock: Clock,
        authenticator: KeyAuthenticator,
    ) -> None:
        self._store = store
        self._operator_store = operator_store
        self._versions = versions
        self._hasher = hasher
        self._clock = clock
        self._authenticator = authenticator

    async def create(
        self,
        organization: OrganizationId,
        project: ProjectId,
        *,
        name: str,
        actor: ApiKeyId,
        limits: Limits | None = None,
        expires_in_s: int | None = None,
    ) -> tuple[ProjectKeyDetails, str]:
        """Make a tenant's key; return it and its secret, which is not stored anywhere.

        Raises:
            NotFound: the organization has no such live project.
            Unavailable: Redis does not answer; nothing was made.
        """
        row, secret = self._new(Role.TENANT, name, limits or Limits(), expires_in_s)
        row.project_id = project
        await self._versions.publish([KeyVersion(organization, ApiKeyId(row.id), row.version)])
        return await self._store.add_key(organization, row, actor=actor), secret

    async def create_operator(
        self, *, name: str, actor: ApiKeyId, expires_in_s: int | None = None
    ) -> tuple[OperatorKeyView, str]:
        """Make an operator's key; return it and its secret, which is not stored anywhere."""
        row, secret = self._new(Role.OPERATOR, name, Limits(), expires_in_s)
        return await self._operator_store.add_operator_key(row, actor=actor), secret

    async def revoke(self, organization: OrganizationId, key: str, *, actor: ApiKeyId) -> None:
        """End a key at once.

        Raises:
            NotFound: the organization has no such key.
            Unavailable: ended, but Redis does not answer: caches may know it for up to 30 s. Doing it again is fine.
        """
        await self.ended([await self._store.revoke_key(organization, key, actor=actor)])

    async def revoke_operator(self, key: str, *, actor: ApiKeyId) -> None:
        """End an operator's key; other processes may know it for up to 30 s.

        Raises:
            NotFound: no operator's key has this id.
            Conflict: it is the last one.
        """
        await self._operator_store.revoke_operator_key(key, actor=actor)
        self._authenticator.forget(ApiKeyId(key))

    async def ended(self, versions: list[KeyVersion]) -> None:
        """Tell everybody of keys that just ended in SQL."""
        for version in versions:
            self._authenticator.forget(version.key)
        await self._versions.publish(versions)

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
            version=FIRST_VERSION,
            limits=limits,
            created_at=now_ms // 1000,
            expires_at=None if expires_in_s is None else now_ms // 1000 + expires_in_s,
            changed_ms=now_ms,
        )
        return row, secret
