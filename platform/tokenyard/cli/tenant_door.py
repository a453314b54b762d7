"""How `tokenyard-train` comes by a tenant's key: it has one, or as the operator borrows one for a while."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tokenyard.cli.api import Api, ApiFailed
from tokenyard.cli.output import write

BORROWED_FOR_S = 24 * 3600


@asynccontextmanager
async def tenant_api(
    url: str, *, api_key: str | None, admin_key: str | None, organization: str | None, project: str | None
) -> AsyncIterator[tuple[Api, str]]:
    """Give the API under a tenant's key, and that key; a borrowed one is revoked at the end.

    An operator's key counts only together with an organization, and then before a tenant's.

    Raises:
        ApiFailed: no key that fits was given, or the platform refuses it.
    """
    if not admin_key or not organization:
        if not api_key:
            raise ApiFailed("Set TOKENYARD_API_KEY, or as the operator TOKENYARD_ADMIN_KEY with --organization.")
        async with Api(url, api_key) as api:
            yield api, api_key
        return
    async with Api(url, admin_key) as operator:
        keys = f"/admin/organizations/{organization}/api_keys"
        body = {"name": "tokenyard-train", "expires_in_seconds": BORROWED_FOR_S}
        borrowed = await operator.post(keys, body | ({"project": project} if project else {}))
        try:
            async with Api(url, borrowed["value"]) as api:
                yield api, borrowed["value"]
        finally:
            try:
                await operator.delete(f"{keys}/{borrowed['id']}")
            except ApiFailed as error:  # it ends by itself, and the job's outcome matters more
                write(f"The borrowed key {borrowed['id']} could not be revoked: {error}")
