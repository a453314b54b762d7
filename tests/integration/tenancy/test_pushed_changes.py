"""Whatever an operator changes is in force in every process: pushed, not polled. No clock moves in these tests."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from support.tenancy_stand import LOST_REDIS, Tenancy
from tokenyard.core.errors import Unauthenticated
from tokenyard.core.ids import OrganizationId
from tokenyard.core.principal import Limits, Principal
from tokenyard.limits.revisions import RedisRevisions
from tokenyard.storage.redis import connect_redis
from tokenyard.storage.transactional_outbox import OutboxMessage
from tokenyard.tenancy.api_keys import BOOTSTRAP
from tokenyard.tenancy.views import OrganizationView

Seen = Callable[[Principal], object]

ORGANIZATION = "/admin/organizations/acme"
PROJECT = "/admin/organizations/acme/projects/PROJECT"
KEY = "/admin/organizations/acme/api_keys/KEY"


def limit_of(scope: str) -> Seen:
    return lambda principal: {one.scope: one.limits for one in principal.limits}[scope]


@pytest.mark.parametrize(
    ("path", "change", "seen", "expected"),
    [
        (ORGANIZATION, {"limits": {"tokens_per_minute": 7}}, limit_of("organization"), Limits(tokens_per_minute=7)),
        (ORGANIZATION, {"weight": 9}, lambda principal: principal.weight, 9),
        (PROJECT, {"limits": {"concurrency": 2}}, limit_of("project"), Limits(concurrency=2)),
        (KEY, {"limits": {"requests_per_day": 3}}, limit_of("key"), Limits(requests_per_day=3)),
    ],
)
async def test_a_changed_limit_or_weight_is_in_force_in_every_process(
    tenancy: Tenancy, path: str, change: dict[str, object], seen: Seen, expected: object
) -> None:
    organization, secret = await tenancy.new_tenant("acme")
    async with tenancy.other_process() as one, tenancy.other_process() as two, tenancy.other_process() as three:
        processes = one, two, three
        for process in processes:
            assert seen(await process.authenticator.tenant(secret)) != expected
        key = (await tenancy.authenticator.tenant(secret)).key
        path = path.replace("PROJECT", organization.default_project_id).replace("KEY", key)
        assert (await tenancy.as_operator("PATCH", path, change)).status_code == 200
        assert seen(await tenancy.authenticator.tenant(secret)) == expected, "at once where it was changed"
        for process in processes:
            await process.is_told(organization.id)
            principal = await process.authenticator.tenant(secret)
            assert (seen(principal), principal.revision) == (expected, 2)
    assert await tenancy.revision(organization.id) == 2


async def revoke(tenancy: Tenancy, organization: OrganizationView, secret: str) -> None:
    key = (await tenancy.authenticator.tenant(secret)).key
    assert (await tenancy.as_operator("DELETE", f"{ORGANIZATION}/api_keys/{key}")).status_code == 200


async def archive(tenancy: Tenancy, _organization: OrganizationView, _secret: str) -> None:
    assert (await tenancy.as_operator("PATCH", ORGANIZATION, {"archived": True})).status_code == 200


async def archive_project(tenancy: Tenancy, organization: OrganizationView, _secret: str) -> None:
    path = PROJECT.replace("PROJECT", organization.default_project_id)
    assert (await tenancy.as_operator("PATCH", path, {"archived": True})).status_code == 200


@pytest.mark.parametrize("end", [revoke, archive, archive_project])
async def test_an_ended_key_is_dead_in_every_process(
    tenancy: Tenancy, end: Callable[[Tenancy, OrganizationView, str], Awaitable[None]]
) -> None:
    organization, secret = await tenancy.new_tenant("acme")
    async with tenancy.other_process() as one, tenancy.other_process() as two:
        for process in (one, two):
            assert await process.authenticator.tenant(secret)
        await end(tenancy, organization, secret)
        for process in (one, two):
            await process.is_told(organization.id)
            with pytest.raises(Unauthenticated):
                await process.authenticator.tenant(secret)


async def test_a_revived_organization_is_served_in_every_process(tenancy: Tenancy) -> None:
    organization, secret = await tenancy.new_tenant("acme")
    await archive(tenancy, organization, secret)
    async with tenancy.other_process() as process:
        with pytest.raises(Unauthenticated):
            await process.authenticator.tenant(secret)
        await tenancy.as_operator("PATCH", ORGANIZATION, {"archived": False})
        await process.is_told(organization.id)
        assert (await process.authenticator.tenant(secret)).revision == 3


async def test_an_ended_operator_key_is_dead_in_every_process(tenancy: Tenancy) -> None:
    made = (await tenancy.as_operator("POST", "/admin/operator_keys", {"name": "second"})).json()
    async with tenancy.other_process() as process:
        assert await process.authenticator.operator(made["value"])
        await tenancy.as_operator("DELETE", f"/admin/operator_keys/{made['id']}")
        await process.is_told(made["id"])
        with pytest.raises(Unauthenticated):
            await process.authenticator.operator(made["value"])
        assert await process.authenticator.operator(tenancy.operator_secret)


async def test_nobody_looks_up_what_no_change_concerns(tenancy: Tenancy) -> None:
    """Neither another organization's keys, nor anyone's where a name was changed or a key made."""
    acme, secret = await tenancy.new_tenant("acme")
    umbra, others = await tenancy.new_tenant("umbra")
    async with tenancy.other_process() as process:
        known = await process.authenticator.tenant(others), await process.authenticator.tenant(secret)
        await tenancy.as_operator("PATCH", "/admin/organizations/umbra", {"name": "Umbra Ltd"})
        await tenancy.as_operator("POST", "/admin/organizations/umbra/api_keys", {"name": "second"})
        await tenancy.as_operator("PATCH", ORGANIZATION, {"weight": 9})
        await process.is_told(acme.id)
        assert ("organization", umbra.id) not in process.told
        assert await process.authenticator.tenant(others) is known[0]
        assert await process.authenticator.tenant(secret) is not known[1]
    assert await tenancy.revision(umbra.id) == 0


async def changed_without_carrying(tenancy: Tenancy) -> tuple[OrganizationId, list[OutboxMessage]]:
    """Commit a change as a process does that dies before it can tell anybody."""
    view, messages = await tenancy.operator_store.change_organization(
        "acme", name=None, limits=None, archived=None, actor=BOOTSTRAP, rules={"weight": lambda _old: 9}
    )
    return view.id, messages


async def test_the_loop_of_another_process_tells_what_a_dead_one_did_not(tenancy: Tenancy) -> None:
    _, secret = await tenancy.new_tenant("acme")
    async with tenancy.other_process() as process:
        assert (await process.authenticator.tenant(secret)).weight == 1
        organization, _ = await changed_without_carrying(tenancy)
        tenancy.clock.advance(1)
        await tenancy.outbox_on(tenancy.redis).step()
        await process.is_told(organization)
        assert (await process.authenticator.tenant(secret)).weight == 9
    assert await tenancy.revision(organization) == 2


async def test_a_change_made_while_redis_was_away_is_told_when_it_is_back(tenancy: Tenancy) -> None:
    organization, secret = await tenancy.new_tenant("acme")
    lost = connect_redis(LOST_REDIS)
    tenancy.push._outbox = tenancy.outbox_on(lost)
    async with tenancy.other_process() as process:
        await process.authenticator.tenant(secret)
        assert (await tenancy.as_operator("PATCH", ORGANIZATION, {"weight": 9})).json()["weight"] == 9
        assert (await tenancy.authenticator.tenant(secret)).weight == 9, "this process knows without Redis"
        assert await tenancy.revision(organization.id) == 0
        await tenancy.run_loops_once()
        await process.is_told(organization.id)
        assert (await process.authenticator.tenant(secret)).weight == 9
    assert await tenancy.revision(organization.id) == 2
    await lost.aclose()


async def test_revisions_only_grow_whatever_the_order(tenancy: Tenancy) -> None:
    organization, _ = await tenancy.new_tenant("acme")
    _, first = await changed_without_carrying(tenancy)
    _, second = await changed_without_carrying(tenancy)
    for messages in (second, first, second):
        await tenancy.outbox.carry(messages)
        assert await tenancy.revision(organization.id) == 3
    for revision in (10, 9, 11, 2):
        await RedisRevisions(tenancy.redis).raise_to(organization.id, revision)
    assert await tenancy.revision(organization.id) == 11


async def test_many_changes_at_once_are_all_in_force_at_the_newest_revision(tenancy: Tenancy) -> None:
    organization, secret = await tenancy.new_tenant("acme")
    await tenancy.operator_store.change_organization(
        "acme", name=None, limits=None, archived=None, actor=BOOTSTRAP, rules={"weight": lambda _old: 2}
    )
    messages = [message for _ in range(20) for message in (await changed_without_carrying(tenancy))[1]]
    async with tenancy.other_process() as process:
        await process.authenticator.tenant(secret)
        await tenancy.outbox.carry(messages)
        await process.is_told(organization.id)
        assert (await process.authenticator.tenant(secret)).revision == await tenancy.revision(organization.id) == 22
        assert process.told.count(("organization", organization.id)) == 1


async def test_changes_at_the_same_moment_each_make_a_revision(tenancy: Tenancy) -> None:
    organization, secret = await tenancy.new_tenant("acme")
    project = PROJECT.replace("PROJECT", organization.default_project_id)
    made = [await tenancy.as_operator("POST", f"{ORGANIZATION}/api_keys", {"name": f"k{at}"}) for at in range(4)]
    changes = [tenancy.as_operator("PATCH", ORGANIZATION, {"weight": at + 2}) for at in range(4)]
    changes += [tenancy.as_operator("PATCH", project, {"limits": {"concurrency": at}}) for at in range(4)]
    changes += [tenancy.as_operator("DELETE", f"{ORGANIZATION}/api_keys/{key.json()['id']}") for key in made]
    assert {answer.status_code for answer in await asyncio.gather(*changes)} == {200}
    assert (await tenancy.authenticator.tenant(secret)).revision == await tenancy.revision(organization.id) == 13
