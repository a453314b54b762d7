"""An authenticator whose keys are given in the test."""

from collections.abc import Mapping

from tokenyard.core.errors import PermissionDenied, Unauthenticated
from tokenyard.core.ids import ApiKeyId
from tokenyard.core.principal import Operator, Principal


class FixedAuthenticator:
    """Knows the tenants' keys by their secrets (a test may change them), and one operator's secret."""

    def __init__(self, tenants: Mapping[str, Principal], operator: str = "operator-secret") -> None:
        self.tenants = dict(tenants)
        self._operator = operator

    async def tenant(self, secret: str) -> Principal:
        if secret == self._operator:
            raise PermissionDenied("an operator's key")
        if secret not in self.tenants:
            raise Unauthenticated("Incorrect API key provided.")
        return self.tenants[secret]

    async def fresh_tenant(self, secret: str) -> Principal:
        return await self.tenant(secret)

    async def operator(self, secret: str) -> Operator:
        if secret in self.tenants:
            raise PermissionDenied("a tenant's key")
        if secret != self._operator:
            raise Unauthenticated("Incorrect API key provided.")
        return Operator(ApiKeyId("key_operator"))
