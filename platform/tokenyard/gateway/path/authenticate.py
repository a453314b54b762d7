"""Stage 1: who is calling."""

from tokenyard.core.principal import Principal
from tokenyard.gateway.path.client import Client
from tokenyard.web.auth import Authenticator, bearer


async def authenticate(client: Client, authenticator: Authenticator) -> Principal:
    """Return whose key came with the request.

    Raises:
        Unauthenticated: no key, or not a valid one.
        PermissionDenied: an operator's key.
    """
    return await authenticator.tenant(bearer(client.header(b"authorization")))
