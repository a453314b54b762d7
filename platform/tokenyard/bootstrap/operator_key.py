"""Makes and ends operators' keys straight in SQL: whoever can write the database is the operator."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tokenyard.core.clock import SystemClock
from tokenyard.core.errors import Conflict
from tokenyard.settings import Settings
from tokenyard.storage.database import Database
from tokenyard.storage.redis import connect_redis
from tokenyard.tenancy.api_keys import BOOTSTRAP, ApiKeys
from tokenyard.tenancy.key_versions import KeyVersions
from tokenyard.tenancy.keys import KeyHasher, Pepper
from tokenyard.tenancy.operator import TenancyOperatorStore
from tokenyard.tenancy.store import TenancyStore

ADMIN_KEY_NAME = "first admin key"
SESSION_KEY_NAME = "command line"
SESSION_S = 3600


async def first_admin_key(settings: Settings) -> str | None:
    """Make the installation's first lasting operator key; return None where there is one already."""
    async with _api_keys(settings) as (store, keys):
        if any(key.expires is None for key in await store.operator_keys()):
            return None
        _key, secret = await keys.create_operator(name=ADMIN_KEY_NAME, actor=BOOTSTRAP)
        return secret


@asynccontextmanager
async def session_key(settings: Settings) -> AsyncIterator[str]:
    """Yield an operator key that lives as long as this block, and an hour at most."""
    async with _api_keys(settings) as (_store, keys):
        key, secret = await keys.create_operator(name=SESSION_KEY_NAME, actor=BOOTSTRAP, expires_in_s=SESSION_S)
    try:
        yield secret
    finally:
        async with _api_keys(settings) as (_store, keys):
            await _revoke(keys, key.id)


async def _revoke(keys: ApiKeys, key: str) -> None:
    try:
        await keys.revoke_operator(key, actor=BOOTSTRAP)
    except Conflict:  # the only operator key there is: it ends within the hour
        return


@asynccontextmanager
async def _api_keys(settings: Settings) -> AsyncIterator[tuple[TenancyOperatorStore, ApiKeys]]:
    clock = SystemClock()
    database = Database(settings.effective_database_url)
    redis = connect_redis(settings.effective_redis_url)  # asked only for tenants' keys
    store = TenancyOperatorStore(database, clock)
    try:
        yield (
            store,
            ApiKeys(
                store=TenancyStore(database, clock),
                operator_store=store,
                versions=KeyVersions(redis),
                hasher=KeyHasher([Pepper(1, settings.derived_secret("api-key-pepper-1"))]),
                clock=clock,
            ),
        )
    finally:
        await redis.aclose()
        await database.close()
