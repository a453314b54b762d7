"""Who holds a key: real SQL and Redis, the cache's ages, and what happens when a key or a database ends."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event

from support.gateway_stack import until
from support.tenancy_stand import LOST_REDIS, Tenancy
from tokenyard.core.errors import PermissionDenied, RateLimited, Unauthenticated, Unavailable
from tokenyard.core.principal import Limits, Role
from tokenyard.storage.database import Database
from tokenyard.storage.redis import connect_redis
from tokenyard.tenancy.api_keys import BOOTSTRAP
from tokenyard.tenancy.authentication.authenticator import KeyAuthenticator
from tokenyard.tenancy.authentication.unknown_keys import BURST, NETWORK_BURST, NETWORK_PER_S
from tokenyard.tenancy.keys import Credential, KeyHasher, Pepper, new_secret


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


async def is_refused(authenticator: KeyAuthenticator, secret: str) -> bool:
    try:
        await authenticator.tenant(secret)
    except Unauthenticated:
        return True
    return False


async def test_a_key_tells_its_holder_with_the_limits_of_all_three_scopes(tenancy: Tenancy) -> None:
    organization, _ = await tenancy.new_tenant("acme")
    await tenancy.operator_store.change_organization(
        organization.id,
        name=None,
        limits=lambda _limits: Limits(requests_per_minute=9),
        archived=None,
        actor=BOOTSTRAP,
        rules={"weight": lambda _old: 3},
    )
    project = await tenancy.store.create_project(
        organization.id, name="p", limits=Limits(concurrency=2), actor=BOOTSTRAP
    )
    key, secret = await tenancy.keys.create(
        organization.id, project.id, name="k", actor=BOOTSTRAP, limits=Limits(tokens_per_minute=5)
    )
    principal = await tenancy.authenticator.tenant(secret)
    assert (principal.organization, principal.project, principal.key) == (organization.id, project.id, key.id)
    assert (principal.revision, principal.weight) == (2, 3)
    assert [(scoped.scope, scoped.id) for scoped in principal.limits] == [
        ("key", key.id),
        ("project", project.id),
        ("organization", organization.id),
    ]
    assert principal.limits[0].limits.tokens_per_minute == 5
    assert principal.limits[1].limits.concurrency == 2
    assert principal.limits[2].limits.requests_per_minute == 9


async def test_a_hundred_concurrent_first_calls_are_one_query_and_later_ones_none(tenancy: Tenancy) -> None:
    _, secret = await tenancy.new_tenant("acme")
    with counted_queries(tenancy.database) as queries:
        await asyncio.gather(*(tenancy.authenticator.tenant(secret) for _ in range(100)))
        assert len(queries) == 1
        await tenancy.authenticator.tenant(secret)
        assert len(queries) == 1
        tenancy.clock.advance(31)
        await tenancy.authenticator.tenant(secret)
        await until(lambda: len(queries) == 2)


async def test_a_key_that_was_last_seen_minutes_ago_does_not_wait_for_sql(tenancy: Tenancy) -> None:
    _, secret = await tenancy.new_tenant("acme")
    cached = await tenancy.authenticator.tenant(secret)
    answers, asked = asyncio.Event(), asyncio.Event()
    credential = tenancy.operator_store.credential

    async def hangs(hashes: Sequence[str]) -> Credential | None:
        asked.set()
        await answers.wait()
        return await credential(hashes)

    tenancy.operator_store.credential = hangs  # type: ignore[method-assign]
    tenancy.clock.advance(599)
    async with asyncio.timeout(5):
        assert await tenancy.authenticator.tenant(secret) == cached
        await asked.wait()
    answers.set()


async def test_an_end_that_was_heard_of_is_never_answered_from_an_old_entry(tenancy: Tenancy) -> None:
    organization, secret = await tenancy.new_tenant("acme")
    elsewhere = tenancy.deaf_process()
    cached = await elsewhere.tenant(secret)
    await tenancy.keys.revoke(organization.id, cached.key, actor=BOOTSTRAP)
    tenancy.clock.advance(300)
    await elsewhere.organization_changed(organization.id)
    with pytest.raises(Unauthenticated):
        await elsewhere.tenant(secret)


async def test_a_flood_of_made_up_keys_reaches_sql_at_a_small_rate(tenancy: Tenancy) -> None:
    _, known = await tenancy.new_tenant("acme")
    _, new = await tenancy.new_tenant("umbra")
    await tenancy.authenticator.tenant(known)
    with counted_queries(tenancy.database) as queries:
        for _ in range(10):
            flood = (tenancy.authenticator.tenant(new_secret(Role.TENANT), "192.0.2.1") for _ in range(200))
            answers = await asyncio.gather(*flood, return_exceptions=True)
        assert {type(answer) for answer in answers} == {RateLimited}
        assert len(queries) == NETWORK_BURST
        assert await tenancy.authenticator.tenant(known, "192.0.2.1")
        assert await tenancy.authenticator.tenant(new, "192.0.2.2"), "only the flood's own address is refused"
        with pytest.raises(RateLimited) as refused:
            await tenancy.authenticator.fresh_tenant(new_secret(Role.TENANT), "192.0.2.1")
        assert int(refused.value.headers["retry-after"]) > 0

        queries.clear()
        tenancy.clock.advance(2)
        same = new_secret(Role.TENANT)
        for _ in range(2 * NETWORK_PER_S + 1):
            with pytest.raises((Unauthenticated, RateLimited)):
                await tenancy.authenticator.fresh_tenant(same, "192.0.2.1")
        assert len(queries) == 2 * NETWORK_PER_S

        queries.clear()
        tenancy.clock.advance(2)
        operators = (tenancy.authenticator.operator(new_secret(Role.OPERATOR), "192.0.2.1") for _ in range(200))
        await asyncio.gather(*operators, return_exceptions=True)
        assert len(queries) == 2 * NETWORK_PER_S


async def test_a_flood_from_everywhere_reaches_sql_at_a_small_rate(tenancy: Tenancy) -> None:
    _, known = await tenancy.new_tenant("acme")
    await tenancy.authenticator.tenant(known)
    with counted_queries(tenancy.database) as queries:
        for number in range(10):
            flood = (tenancy.authenticator.tenant(new_secret(Role.TENANT), f"10.0.{number}.{i}") for i in range(200))
            answers = await asyncio.gather(*flood, return_exceptions=True)
        assert {type(answer) for answer in answers} == {Unavailable}
        assert len(queries) == BURST
        tenancy.clock.advance(599)
        assert await tenancy.authenticator.tenant(known), "what is known is not asked for as what is not"


async def test_a_few_addresses_within_their_bound_do_not_keep_a_new_key_from_others(tenancy: Tenancy) -> None:
    organization, _ = await tenancy.new_tenant("acme")
    for second in range(20):
        for number in range(6):
            flood = (tenancy.authenticator.tenant(new_secret(Role.TENANT), f"10.0.0.{number}") for _ in range(10))
            await asyncio.gather(*flood, return_exceptions=True)
        _, secret = await tenancy.keys.create(
            organization.id, organization.default_project_id, name=str(second), actor=BOOTSTRAP
        )
        assert await tenancy.authenticator.tenant(secret, "192.0.2.1")
        tenancy.clock.advance(1)


async def test_a_key_that_could_not_be_looked_up_does_not_count_as_unknown(
    tenancy: Tenancy, dead_database: Database
) -> None:
    _, secret = await tenancy.new_tenant("acme")
    alive, tenancy.operator_store._database = tenancy.operator_store._database, dead_database
    for _ in range(NETWORK_BURST + 1):
        with pytest.raises(Unavailable):
            await tenancy.authenticator.tenant(new_secret(Role.TENANT), "192.0.2.1")
    tenancy.operator_store._database = alive
    tenancy.clock.advance(1.1)
    assert await tenancy.authenticator.tenant(secret, "192.0.2.1")


async def test_keys_that_exist_are_looked_up_without_such_a_limit(tenancy: Tenancy) -> None:
    organization, _ = await tenancy.new_tenant("acme")
    for number in range(2 * NETWORK_BURST):
        _, secret = await tenancy.keys.create(
            organization.id, organization.default_project_id, name=str(number), actor=BOOTSTRAP
        )
        assert await tenancy.authenticator.tenant(secret, "192.0.2.1")


async def test_unknown_keys_are_asked_for_once_and_malformed_ones_never(tenancy: Tenancy) -> None:
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


async def test_the_two_kinds_of_key_do_not_open_each_other_s_doors(tenancy: Tenancy) -> None:
    _, secret = await tenancy.new_tenant("acme")
    with pytest.raises(PermissionDenied):
        await tenancy.authenticator.operator(secret)
    with pytest.raises(PermissionDenied):
        await tenancy.authenticator.tenant(tenancy.operator_secret)
    assert (await tenancy.authenticator.operator(tenancy.operator_secret)).key


async def test_an_expired_key_is_dead_also_where_it_is_cached(tenancy: Tenancy) -> None:
    organization, _ = await tenancy.new_tenant("acme")
    _, secret = await tenancy.keys.create(
        organization.id, organization.default_project_id, name="short", actor=BOOTSTRAP, expires_in_s=10
    )
    await tenancy.authenticator.tenant(secret)
    tenancy.clock.advance(10)
    with pytest.raises(Unauthenticated):
        await tenancy.authenticator.tenant(secret)


async def test_a_revoked_key_is_dead_here_at_once_and_its_revision_in_redis_everywhere(tenancy: Tenancy) -> None:
    organization, secret = await tenancy.new_tenant("acme")
    elsewhere = tenancy.deaf_process()
    cached = await elsewhere.tenant(secret)
    await tenancy.authenticator.tenant(secret)
    await tenancy.keys.revoke(organization.id, cached.key, actor=BOOTSTRAP)
    with pytest.raises(Unauthenticated):
        await tenancy.authenticator.tenant(secret)
    assert await tenancy.revision(organization.id) > cached.revision
    tenancy.clock.advance(31)
    assert await elsewhere.tenant(secret) == cached, "it is looked up meanwhile"
    await until(lambda: is_refused(elsewhere, secret))


async def test_archiving_an_organization_ends_its_keys_at_once_and_taking_it_back_opens_them(tenancy: Tenancy) -> None:
    organization, secret = await tenancy.new_tenant("acme")
    principal = await tenancy.authenticator.tenant(secret)
    assert (await tenancy.as_operator("PATCH", "/admin/organizations/acme", {"archived": True})).status_code == 200
    with pytest.raises(Unauthenticated):
        await tenancy.authenticator.tenant(secret)
    assert await tenancy.revision(organization.id) > principal.revision
    await tenancy.as_operator("PATCH", "/admin/organizations/acme", {"archived": False})
    assert (await tenancy.authenticator.tenant(secret)).revision > principal.revision


async def test_a_key_is_made_and_ended_while_redis_is_away(tenancy: Tenancy) -> None:
    organization, _ = await tenancy.new_tenant("acme")
    lost = connect_redis(LOST_REDIS)
    tenancy.push._outbox = tenancy.outbox_on(lost)
    key, secret = await tenancy.keys.create(organization.id, organization.default_project_id, name="k", actor=BOOTSTRAP)
    assert (await tenancy.authenticator.tenant(secret)).key == key.id
    path = f"/admin/organizations/acme/api_keys/{key.id}"
    for _ in range(2):
        assert (await tenancy.as_operator("DELETE", path)).json()["deleted"] is True
    with pytest.raises(Unauthenticated):
        await tenancy.authenticator.tenant(secret)
    await lost.aclose()


async def test_an_old_pepper_still_opens_old_keys(tenancy: Tenancy) -> None:
    organization, secret = await tenancy.new_tenant("acme")
    rotated = KeyHasher([Pepper(2, b"q" * 32), Pepper(1, b"p" * 32)])
    tenancy.hasher = rotated
    assert (await tenancy.deaf_process().tenant(secret)).organization == organization.id


@pytest.fixture
async def dead_database() -> AsyncIterator[Database]:
    opened = Database("postgresql+asyncpg://nobody:nothing@127.0.0.1:1/none")
    yield opened
    await opened.close()


async def test_while_sql_is_down_cached_keys_serve_for_ten_minutes(tenancy: Tenancy, dead_database: Database) -> None:
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


async def test_asking_afresh_during_an_outage_of_sql_does_not_end_a_cached_key(
    tenancy: Tenancy, dead_database: Database
) -> None:
    _, secret = await tenancy.new_tenant("acme")
    cached = await tenancy.authenticator.tenant(secret)
    tenancy.operator_store._database = dead_database
    with pytest.raises(Unavailable):
        await tenancy.authenticator.fresh_tenant(secret)
    assert await tenancy.authenticator.tenant(secret) == cached


async def test_a_change_that_is_heard_during_an_outage_of_sql_does_not_end_a_cached_key(
    tenancy: Tenancy, dead_database: Database
) -> None:
    organization, secret = await tenancy.new_tenant("acme")
    cached = await tenancy.authenticator.tenant(secret)
    operator = await tenancy.authenticator.operator(tenancy.operator_secret)
    tenancy.operator_store._database = dead_database
    for subject in (organization.id, None):
        await tenancy.authenticator.organization_changed(subject)
        await tenancy.authenticator.operator_key_ended(subject)
        assert await tenancy.authenticator.tenant(secret) == cached
        assert await tenancy.authenticator.operator(tenancy.operator_secret) == operator
