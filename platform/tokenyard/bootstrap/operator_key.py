"""Makes and ends operators' keys straight in SQL: whoever can write the database is the operator."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tokenyard.bootstrap.foundation import Foundation
from tokenyard.core.errors import Conflict
from tokenyard.settings import Settings
from tokenyard.tenancy.api_keys import BOOTSTRAP

ADMIN_KEY_NAME = "first admin key"
SESSION_KEY_NAME = "command line"
SESSION_S = 3600


async def first_admin_key(settings: Settings) -> str | None:
    """Make the installation's first lasting operator key; return None where there is one already."""
    async with Foundation.opened(settings) as foundation:
        if any(key.expires_at is None for key in await foundation.tenancy_operator.operator_keys()):
            return None
        _key, secret = await foundation.api_keys.create_operator(name=ADMIN_KEY_NAME, actor=BOOTSTRAP)
        return secret


@asynccontextmanager
async def session_key(settings: Settings) -> AsyncIterator[str]:
    """Yield an operator key that lives as long as this block, and an hour at most."""
    async with Foundation.opened(settings) as foundation:
        keys = foundation.api_keys
        key, secret = await keys.create_operator(name=SESSION_KEY_NAME, actor=BOOTSTRAP, expires_in_s=SESSION_S)
        try:
            yield secret
        finally:
            try:
                await keys.revoke_operator(key.id, actor=BOOTSTRAP)
            except Conflict:  # the only operator key there is: it ends within the hour
                pass
