"""Whose key a command acts with: a given one, or one that is made for it and ends with it."""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple

from tokenyard.cli.output import write
from tokenyard.clients.platform_api.connection import ApiConnection, ApiFailed
from tokenyard.clients.platform_api.operator_api import OperatorApi
from tokenyard.settings import Settings

TENANT_KEY_S = 24 * 3600


class NoDatabase(Exception):
    """The installation's database cannot be used from here; the message says why."""


@asynccontextmanager
async def operator_key(given: str | None, settings: Settings) -> AsyncIterator[str | None]:
    """Yield `given`; else a key of our own that ends with this block; None where this is not the operator's machine.

    Raises:
        NoDatabase: the secret is here, but the database does not answer or was never set up.
    """
    if given or not settings.secret.get_secret_value():
        yield given
        return
    # Loaded only here: with a given key a command starts in half the time.
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415

    from tokenyard.bootstrap.operator_key import session_key  # noqa: PLC0415
    from tokenyard.storage.outage import DatabaseDown  # noqa: PLC0415

    session = session_key(settings)
    try:
        key = await session.__aenter__()
    except (DatabaseDown, SQLAlchemyError, OSError) as error:
        raise NoDatabase(
            f"The database cannot be used ({type(error).__name__}). Start the platform once with `tokenyard up`,"
            " or give an admin key."
        ) from error
    try:
        yield key
    finally:
        await session.__aexit__(None, None, None)


class Tenant(NamedTuple):
    """Connections to the platform, and the key of the tenant that a command acts for."""

    connection: ApiConnection
    key: str


@asynccontextmanager
async def acting_tenant(
    url: str, settings: Settings, *, organization: str | None, project: str | None
) -> AsyncIterator[Tenant]:
    """Connect as the tenant of TOKENYARD_API_KEY, or as the operator for `organization`: with TOKENYARD_ADMIN_KEY, or
    without it on the machine that has the database.

    Raises:
        ApiFailed: no key that fits was given, or the platform refuses it.
        NoDatabase: the secret is here, but the database does not answer or was never set up.
    """
    api_key, admin_key = os.environ.get("TOKENYARD_API_KEY"), os.environ.get("TOKENYARD_ADMIN_KEY")
    async with AsyncExitStack() as stack:
        if organization and not admin_key and not api_key:
            admin_key = await stack.enter_async_context(operator_key(None, settings))
        connection = await stack.enter_async_context(ApiConnection(url))
        key = await stack.enter_async_context(
            tenant_key(connection, api_key=api_key, admin_key=admin_key, organization=organization, project=project)
        )
        yield Tenant(connection, key)


@asynccontextmanager
async def tenant_key(
    connection: ApiConnection,
    *,
    api_key: str | None,
    admin_key: str | None,
    organization: str | None,
    project: str | None,
) -> AsyncIterator[str]:
    """Yield a tenant's key; one that the operator had made is revoked at the end.

    An operator's key counts only together with an organization, and then before a tenant's.

    Raises:
        ApiFailed: no key that fits was given, or the platform refuses it.
    """
    if not admin_key or not organization:
        if not api_key:
            message = "Set TOKENYARD_API_KEY, or as the operator TOKENYARD_ADMIN_KEY with --organization."
            raise ApiFailed(message, 401)
        yield api_key
        return
    operator = OperatorApi(connection, admin_key)
    made = await operator.create_key(organization, name="tokenyard-train", project=project, expires_in_s=TENANT_KEY_S)
    try:
        yield made.value
    finally:
        try:
            await operator.revoke_key(organization, made.id)
        except ApiFailed as error:  # it ends by itself, and the job's outcome matters more
            write(f"The temporary key {made.id} could not be revoked: {error}")
