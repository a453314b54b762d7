"""Who holds a key: real SQL and Redis, the cache's ages, and what happens when a key or a database ends."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event

from tokenyard.core.errors import PermissionDenied, Unauthenticated, Unavailable
from tokenyard.core.ids import ApiKeyId
from tokenyard.core.principal import Limits, Role
from tokenyard.core.redis_keys import bucket_of, key_version
from tokenyard.storage.database import Database
from tokenyard.storage.redis import connect_redis
from tokenyard.tenancy.api_keys import BOOTSTRAP
from tokenyard.tenancy.key_versions import KeyVersions
from tokenyard.tenancy.keys import KeyHasher, KeyVersion, Pepper, new_secret

if TYPE_CHECKING:
    from integration.tenancy.conftest import Tenancy


@contextmanager
def counted_queries(database: Database) -> Iterator[list[str]]:
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.lstrip().upper().startswith("SELECT"):
            seen.append(statement)

    event.listen(database.engine.sync_engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(database.engine.sync_engine, "before_cursor_execute", note)


async def test_a_key_tells_its_holder_with_the_limits_of_all_three_scopes(tenancy: "Tenancy") -> None:
    organization, _ = await tenancy.new_tenant("acme")
    await tenancy.operator_store.change_organization(
        organization.id, name=None, weight=3, limits=lambda _limits: Limits(requests_per_minute=9),
        archived=None,
        actor=BOOTSTRAP,
    )  # fmt: skip
    project = await tenancy.store.create_project(
        organization.id, name="p", limits=Limits(concurrency=2), actor=BOOTSTRAP
    )
    key, secret = await tenancy.keys.create(
        organization.id, project.id, name="k", actor=BOOTSTRAP, limits=Limits(tokens_per_minute=5)
    )
    principal = await tenancy.authenticator.tenant(secret)
    assert (principal.organization, principal.project, principal.key) == (organization.id, project.id, key.id)
    assert (principal.key_version, principal.weight) == (1, 3)
    assert [(scoped.scope, scoped.id) for scoped in principal.limits] == [
        ("key", key.id),
        ("project", project.id),
        ("organization", organization.id),
    ]
    assert principal.limits[0].limits.tokens_per_minute == 5
    assert principal.limits[1].limits.concurrency == 2
    assert principal.limits[2].limits.requests_per_minute == 9


async def test_a_hundred_concurrent_first_calls_are_one_query_and_later_ones_none(tenancy: "Tenancy") -> None:
    _, secret = await tenancy.new_tenant("acme")
    with counted_queries(tenancy.database) as queries:
        await asyncio.gather(*(tenancy.authenticator.tenant(secret) for _ in range(100)))
        assert len(queries) == 1
        await tenancy.authenticator.tenant(secret)
        assert len(queries) == 1
        tenancy.clock.advance(31)
        await tenancy.authenticator.tenant(secret)
        assert len(queries) == 2


async def test_unknown_keys_are_asked_for_once_and_malformed_ones_never(tenancy: "Tenancy") -> None:
    unknown = new_secret(Role.TENANT)
    malformed = unknown[:-1] + ("a" if unknown[-1] != "a" else "b")
    with counted_queries(tenancy.database) as queries:
        for secret in (malformed, "", "x" * 10_000, "ty-" + "é" * 36, unknown[:-1]):
            with pytest.raises(Unauthenticated):
                await tenancy.authenticator.tenant(secret)
        assert queries == []
        for _ in range(5):
            with pytest.raises(Unauthenticated):
                await tenancy.authenticator.tenant(unknown)
        assert len(queries) == 1


async def test_the_two_kinds_of_key_do_not_open_each_other_s_doors(tenancy: "Tenancy") -> None:
    _, secret = await tenancy.new_tenant("acme")
    with pytest.raises(PermissionDenied):
        await tenancy.authenticator.operator(secret)
    with pytest.raises(PermissionDenied):
        await tenancy.authenticator.tenant(tenancy.operator_secret)
    assert (await tenancy.authenticator.operator(tenancy.operator_secret)).key


async def test_an_expired_key_is_dead_also_where_it_is_cached(tenancy: "Tenancy") -> None:
    organization, _ = await tenancy.new_tenant("acme")
    _, secret = await tenancy.keys.create(
        organization.id, organization.default_project_id, name="short", actor=BOOTSTRAP, expires_in_s=10
    )
    await tenancy.authenticator.tenant(secret)
    tenancy.clock.advance(10)
    with pytest.raises(Unauthenticated):
        await tenancy.authenticator.tenant(secret)


async def test_a_revoked_key_is_dead_here_at_once_and_its_version_in_redis_everywhere(tenancy: "Tenancy") -> None:
    organization, secret = await tenancy.new_tenant("acme")
    elsewhere = tenancy.another_process()
    cached = await elsewhere.tenant(secret)
    await tenancy.authenticator.tenant(secret)
    await tenancy.keys.revoke(organization.id, cached.key, actor=BOOTSTRAP)
    with pytest.raises(Unauthenticated):
        await tenancy.authenticator.tenant(secret)
    name = key_version(bucket_of(organization.id), cached.key)
    assert int(await tenancy.redis.get(name) or 0) > cached.key_version
    tenancy.clock.advance(31)
    with pytest.raises(Unauthenticated):
        await elsewhere.tenant(secret)


async def test_archiving_an_organization_ends_its_keys_at_once_and_taking_it_back_opens_them(
    tenancy: "Tenancy",
) -> None:
    organization, secret = await tenancy.new_tenant("acme")
    principal = await tenancy.authenticator.tenant(secret)
    assert (await tenancy.as_operator("PATCH", "/admin/organizations/acme", {"archived": True})).status_code == 200
    with pytest.raises(Unauthenticated):
        await tenancy.authenticator.tenant(secret)
    name = key_version(bucket_of(organization.id), principal.key)
    assert int(await tenancy.redis.get(name) or 0) > principal.key_version
    await tenancy.as_operator("PATCH", "/admin/organizations/acme", {"archived": False})
    tenancy.clock.advance(31)
    assert (await tenancy.authenticator.tenant(secret)).key_version > principal.key_version


async def test_a_revocation_that_redis_did_not_hear_is_repeated_by_the_loop(tenancy: "Tenancy") -> None:
    organization, secret = await tenancy.new_tenant("acme")
    key = (await tenancy.authenticator.tenant(secret)).key
    deaf = KeyVersions(connect_redis("redis://127.0.0.1:1/0"))
    with pytest.raises(Unavailable):
        await deaf.publish([await tenancy.store.revoke_key(organization.id, key, actor=BOOTSTRAP)])
    await tenancy.run_loops_once()
    assert await tenancy.redis.get(key_version(bucket_of(organization.id), key)) == b"2"


async def test_versions_only_grow_whatever_the_order(tenancy: "Tenancy") -> None:
    organization, _ = await tenancy.new_tenant("acme")
    key = ApiKeyId("key_x")
    for version in (2, 10, 9, 1):
        await tenancy.versions.publish([KeyVersion(organization.id, key, version)])
    assert await tenancy.redis.get(key_version(bucket_of(organization.id), key)) == b"10"


async def test_an_old_pepper_still_opens_old_keys(tenancy: "Tenancy") -> None:
    organization, secret = await tenancy.new_tenant("acme")
    rotated = KeyHasher([Pepper(2, b"q" * 32), Pepper(1, b"p" * 32)])
    tenancy.hasher = rotated
    assert (await tenancy.another_process().tenant(secret)).organization == organization.id


@pytest.fixture
async def dead_database() -> AsyncIterator[Database]:
    opened = Database("postgresql+asyncpg://nobody:nothing@127.0.0.1:1/none")
    yield opened
    await opened.close()


async def test_while_sql_is_down_cached_keys_serve_for_ten_minutes(tenancy: "Tenancy", dead_database: Database) -> None:
    _, secret = await tenancy.new_tenant("acme")
    _, other = await tenancy.new_tenant("umbra")
    await tenancy.authenticator.tenant(secret)
    tenancy.operator_store._database = dead_database
    tenancy.clock.advance(599)
    assert await tenancy.authenticator.tenant(secret)
    with pytest.raises(Unavailable):
        await tenancy.authenticator.tenant(other)
    tenancy.clock.advance(2)
    with pytest.raises(Unavailable):
        await tenancy.authenticator.tenant(secret)
