"""Who calls a control-plane route: FastAPI dependencies over an `Authenticator` given to the app."""

from typing import Annotated, Protocol

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer

from tokenyard.core.errors import PermissionDenied, Unauthenticated
from tokenyard.core.principal import KeyScope, Operator, Principal
from tokenyard.web.client_address import address_of

MISSING_SCOPE = "missing_scope"


class Authenticator(Protocol):
    """Turns the secret of a key into who holds it."""

    async def tenant(self, secret: str, address: str = "") -> Principal:
        """Return a tenant's principal; `address` is the client's, for whom too many unknown keys are refused.

        Raises:
            Unauthenticated: unknown, malformed, revoked or expired key, or one that `address` may not use.
            PermissionDenied: an operator's key.
            RateLimited: too many unknown keys came from this address.
            Unavailable: it is not known here, and cannot be looked up now.
        """
        ...

    async def fresh_tenant(self, secret: str, address: str = "") -> Principal:
        """Return a tenant's principal as it stands at this moment, never from a cache.

        Raises:
            Unavailable: that cannot be looked up now; and the others that `tenant` raises.
        """
        ...

    async def operator(self, secret: str, address: str = "") -> Operator:
        """Return the operator that holds the key.

        Raises:
            PermissionDenied: a tenant's key; and the others that `tenant` raises.
        """
        ...


def bearer(authorization: str | None, api_key: str | None = None) -> str:
    """Return the token of an `Authorization: Bearer ...` header; where there is none it raises `Unauthenticated`.

    `api_key` is of the header `x-api-key`, in which clients of Anthropic's API may send it.
    """
    if authorization is None and api_key is not None and api_key.strip():
        return api_key.strip()
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated(
            "You didn't provide an API key. Send it in the header `Authorization: Bearer YOUR_KEY`.", code=None
        )
    return token.strip()


# These only tell the description of the API which key a route wants: the header is read by `bearer`.
_API_KEY = HTTPBearer(
    scheme_name="ApiKey",
    description="A tenant's key, `ty-...`; also taken from the header `x-api-key`.",
    auto_error=False,
)
_OPERATOR_KEY = HTTPBearer(scheme_name="OperatorKey", description="An operator's key, `ty-...`.", auto_error=False)
_WantsApiKey = Annotated[object, Security(_API_KEY)]
_WantsOperatorKey = Annotated[object, Security(_OPERATOR_KEY)]


class TenantWith:
    """A dependency: who calls, where the key is for `scope`; None is for keys that are for everything.

    `any_scope` takes every key of a tenant, and `fresh` looks it up at this moment: a revoked one is dead at once.
    """

    def __init__(self, scope: KeyScope | None = None, *, any_scope: bool = False, fresh: bool = False) -> None:
        self.scope = scope
        self.any_scope = any_scope
        self.fresh = fresh

    async def __call__(self, request: Request, _key: _WantsApiKey) -> Principal:
        authenticator: Authenticator = request.app.state.authenticator
        look_up = authenticator.fresh_tenant if self.fresh else authenticator.tenant
        principal = await look_up(_tenants_key(request), address_of(request.scope))
        if not self.any_scope:
            check_scope(principal, self.scope)
        return principal


def _tenants_key(request: Request) -> str:
    return bearer(request.headers.get("authorization"), request.headers.get("x-api-key"))


def check_scope(principal: Principal, scope: KeyScope | None) -> None:
    """Raise `PermissionDenied` where the caller's key is not for `scope`; None is everything."""
    if principal.scopes is not None and scope not in principal.scopes:
        missing = "This needs a key that is for everything" if scope is None else f"Missing scopes: {scope}"
        raise PermissionDenied(f"You have insufficient permissions for this operation. {missing}.", code=MISSING_SCOPE)


async def current_operator(request: Request, _key: _WantsOperatorKey) -> Operator:
    authenticator: Authenticator = request.app.state.authenticator
    return await authenticator.operator(bearer(request.headers.get("authorization")), address_of(request.scope))


CurrentTenant = Annotated[Principal, Depends(TenantWith())]
"""For routes that no scope opens: only a key that is for everything."""
FreshTenant = Annotated[Principal, Depends(TenantWith(fresh=True))]
"""The same, for routes that touch keys: a revoked key is dead there at once."""
AnyTenant = Annotated[Principal, Depends(TenantWith(any_scope=True))]
InferenceTenant = Annotated[Principal, Depends(TenantWith(KeyScope.INFERENCE))]
FreshInferenceTenant = Annotated[Principal, Depends(TenantWith(KeyScope.INFERENCE, fresh=True))]
"""The same, for routes that change something."""
FineTuningTenant = Annotated[Principal, Depends(TenantWith(KeyScope.FINE_TUNING))]
FreshFineTuningTenant = Annotated[Principal, Depends(TenantWith(KeyScope.FINE_TUNING, fresh=True))]
"""The same, for routes that change something: a revoked key is dead there at once."""
BillingTenant = Annotated[Principal, Depends(TenantWith(KeyScope.BILLING))]
FreshBillingTenant = Annotated[Principal, Depends(TenantWith(KeyScope.BILLING, fresh=True))]
"""The same, for routes that change something."""
CurrentOperator = Annotated[Operator, Depends(current_operator)]
