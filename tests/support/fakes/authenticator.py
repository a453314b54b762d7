"""An authenticator whose keys are given in the test."""

from collections.abc import Mapping

from tokenyard.core.errors import PermissionDenied, Unauthenticated, Unavailable
from tokenyard.core.ids import ApiKeyId
from tokenyard.core.principal import Operator, Principal


class FixedAuthenticator:
    """Knows the tenants' keys by their secrets (a test may change them), and one operator's secret.

    `cached` is what it still answers, though `tenants` says otherwise, until it is asked afresh.
    """

    def __init__(self, tenants: Mapping[str, Principal], operator: str = "operator-secret") -> None:
        self.tenants = dict(tenants)
        self.cached: dict[str, Principal] = {}
        self.database_is_down = False
        self._operator = operator

    async def tenant(self, secret: str, address: str = "") -> Principal:
        if secret == self._operator:
            raise PermissionDenied("an operator's key")
        if secret in self.cached:
            return self.cached[secret]
        if secret not in self.tenants:
            raise Unauthenticated("Incorrect API key provided.")
        return self.tenants[secret]

    async def fresh_tenant(self, secret: str, address: str = "") -> Principal:
        if self.database_is_down:
            raise Unavailable("The service cannot look this up right now.")
        self.cached.pop(secret, None)
        return await self.tenant(secret)

    async def operator(self, secret: str, address: str = "") -> Operator:
        if secret in self.tenants:
            raise PermissionDenied("a tenant's key")
        if secret != self._operator:
            raise Unauthenticated("Incorrect API key provided.")
        return Operator(ApiKeyId("key_operator"))
