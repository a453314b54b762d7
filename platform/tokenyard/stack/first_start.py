"""The first start makes the first keys: the operator's in SQL, the rest through the API like everything after it."""

from typing import Any

import msgspec

from tokenyard.bootstrap.operator_key import first_admin_key, session_key
from tokenyard.cli.api import Api
from tokenyard.settings import Settings
from tokenyard.stack.installation import local_url

ORGANIZATION = {"name": "Default", "slug": "default"}
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
    async with session_key(settings) as key, Api(local_url(settings, settings.gateway_port), key) as api:
        existing = await api.get("/admin/organizations", limit=1)
        if existing["data"]:
            return FirstKeys(admin=admin)
        organization: dict[str, Any] = await api.post("/admin/organizations", ORGANIZATION)
        made = await api.post(f"/admin/organizations/{organization['id']}/api_keys", {"name": KEY_NAME})
    return FirstKeys(admin=admin, api=made["value"])
