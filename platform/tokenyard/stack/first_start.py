"""The first start makes the first keys: the operator's in SQL, the rest through the API like everything after it."""

import msgspec

from tokenyard.bootstrap.operator_key import first_admin_key, session_key
from tokenyard.clients.platform_api.connection import ApiConnection
from tokenyard.clients.platform_api.operator_api import OperatorApi
from tokenyard.settings import Settings
from tokenyard.stack.installation import local_url

KEY_NAME = "first API key"


class FirstKeys(msgspec.Struct, frozen=True):
    """Both are None on every start but the first."""

    admin: str | None = None
    api: str | None = None


async def make_first_keys(settings: Settings) -> FirstKeys:
    """Make what a new installation needs; on an old one change nothing.

    The default organization gets its opening credit from billing, as every organization does.
    """
    admin = await first_admin_key(settings)
    async with session_key(settings) as key, ApiConnection(local_url(settings, settings.gateway_port)) as connection:
        api = OperatorApi(connection, key)
        if await api.has_organizations():
            return FirstKeys(admin=admin)
        organization = await api.create_organization(name="Default", slug="default")
        made = await api.create_key(organization.id, name=KEY_NAME)
    return FirstKeys(admin=admin, api=made.value)
