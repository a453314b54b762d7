"""Changes of organizations, projects and keys: field by field, all of them kept, each told in the audit log."""

import asyncio

import pytest

from support.tenancy_stand import Tenancy

ORGANIZATION = "/admin/organizations/acme"
LIMITS: dict[str, int | str] = {
    "requests_per_minute": 1,
    "tokens_per_minute": 2,
    "requests_per_day": 3,
    "tokens_per_day": 4,
    "concurrency": 5,
    "monthly_spend_dollars": "6.00",
}


async def paths(tenancy: Tenancy) -> dict[str, str]:
    """Make a tenant; return where its organization, project and key are changed."""
    organization, secret = await tenancy.new_tenant("acme")
    key = (await tenancy.authenticator.tenant(secret)).key
    return {
        "organization": ORGANIZATION,
        "project": f"{ORGANIZATION}/projects/{organization.default_project_id}",
        "key": f"{ORGANIZATION}/api_keys/{key}",
    }


@pytest.mark.parametrize("scope", ["organization", "project", "key"])
async def test_limits_change_field_by_field(tenancy: Tenancy, scope: str) -> None:
    path = (await paths(tenancy))[scope]
    await tenancy.as_operator("PATCH", path, {"limits": {"requests_per_minute": 5, "concurrency": 2}})
    changed = await tenancy.as_operator("PATCH", path, {"limits": {"concurrency": None}, "name": "New"})
    assert changed.status_code == 200, changed.text
    assert changed.json()["limits"] == {**dict.fromkeys(LIMITS), "requests_per_minute": 5}
    assert changed.json()["name"] == "New"
    again = await tenancy.as_operator("PATCH", path, {})
    assert again.json() == changed.json()


@pytest.mark.parametrize("scope", ["organization", "project", "key"])
async def test_changes_of_the_same_moment_all_hold(tenancy: Tenancy, scope: str) -> None:
    path = (await paths(tenancy))[scope]
    for last in range(5):
        values = {name: str(last + 1) + ".00" if name == "monthly_spend_dollars" else last for name in LIMITS}
        bodies = [{"limits": {name: value}} for name, value in values.items()] + [{"name": f"name {last}"}]
        answers = await asyncio.gather(*(tenancy.as_operator("PATCH", path, body) for body in bodies))
        assert {answer.status_code for answer in answers} == {200}
        assert values in [answer.json()["limits"] for answer in answers], "the last one saw all the others"
        found = (await tenancy.as_operator("PATCH", path, {})).json()
        assert (found["limits"], found["name"]) == (values, f"name {last}")


async def test_the_scopes_of_a_request_change_side_by_side(tenancy: Tenancy) -> None:
    scopes = await paths(tenancy)
    changes = [
        tenancy.as_operator("PATCH", path, {"limits": {name: value}})
        for name, value in LIMITS.items()
        for path in scopes.values()
    ]
    assert {answer.status_code for answer in await asyncio.gather(*changes)} == {200}
    for path in scopes.values():
        assert (await tenancy.as_operator("PATCH", path, {})).json()["limits"] == LIMITS


async def test_a_key_goes_on_under_its_new_limits(tenancy: Tenancy) -> None:
    organization, secret = await tenancy.new_tenant("acme")
    before = await tenancy.authenticator.tenant(secret)
    path = f"{ORGANIZATION}/api_keys/{before.key}"
    changed = await tenancy.as_operator("PATCH", path, {"limits": {"concurrency": 7}, "name": "slower"})
    assert changed.json() == (await tenancy.as_operator("GET", path)).json()
    after = await tenancy.deaf_process().tenant(secret)
    assert {scope.scope: scope.limits.concurrency for scope in after.limits} == {
        "key": 7,
        "project": None,
        "organization": None,
    }
    assert after.revision == before.revision + 1
    [entry] = (await tenancy.as_operator("GET", "/admin/audit_logs?limit=1")).json()["data"]
    operator = await tenancy.authenticator.operator(tenancy.operator_secret)
    assert (entry["type"], entry["resource_id"], entry["organization_id"]) == (
        "api_key.updated",
        before.key,
        organization.id,
    )
    assert entry["actor"]["api_key"]["id"] == operator.key
    assert entry["details"] == {"name": "slower", "limits": {"concurrency": 7}}


async def test_a_key_that_ended_does_not_change(tenancy: Tenancy) -> None:
    path = (await paths(tenancy))["key"]
    await tenancy.as_operator("DELETE", path)
    refused = await tenancy.as_operator("PATCH", path, {"name": "risen"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "conflict")
    assert (await tenancy.as_operator("GET", path)).json()["name"] == "first"
    [entry] = (await tenancy.as_operator("GET", "/admin/audit_logs?limit=1")).json()["data"]
    assert entry["type"] == "api_key.deleted"


async def test_a_key_that_ends_while_it_changes_ends(tenancy: Tenancy) -> None:
    path = (await paths(tenancy))["key"]
    names = [f"name {number}" for number in range(5)]
    changes = [tenancy.as_operator("PATCH", path, {"name": name}) for name in names]
    ended, *changed = await asyncio.gather(tenancy.as_operator("DELETE", path), *changes)
    assert ended.status_code == 200
    assert {answer.status_code for answer in changed} <= {200, 409}
    assert (await tenancy.as_operator("GET", path)).json()["revoked_at"] is not None


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"name": ""}, "name"),
        ({"limits": {"concurrency": -1}}, "limits.concurrency"),
        ({"limits": {"monthly_spend_dollars": "1e-12"}}, "limits.monthly_spend_dollars"),
        ({"project": "proj_x"}, "project"),
        ({"expires_in_seconds": 0}, "expires_in_seconds"),
    ],
)
async def test_a_bad_change_of_a_key_is_refused_with_the_field(
    tenancy: Tenancy, body: dict[str, object], param: str
) -> None:
    path = (await paths(tenancy))["key"]
    refused = await tenancy.as_operator("PATCH", path, body)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)
