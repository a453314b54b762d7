"""Operator and tenant routes of tenancy over HTTP, with what one organization may never see of another."""

import asyncio

import pytest
from sqlalchemy import select

from support.tenancy_stand import Tenancy
from tokenyard.core.errors import Conflict
from tokenyard.tenancy.api_keys import BOOTSTRAP
from tokenyard.tenancy.tables import ApiKeyRow, AuditRow

OWN = "/v1/organization/projects"


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


async def test_an_organization_from_creation_to_a_first_key(tenancy: Tenancy) -> None:
    body = {"name": "Acme Inc", "slug": "acme", "limits": {"requests_per_minute": 5, "monthly_spend_dollars": "12.5"}}
    created = await tenancy.as_operator("POST", "/admin/organizations", body)
    assert created.status_code == 200, created.text
    organization = created.json()
    assert tenancy.billing.heard == [organization["id"]]
    assert organization["limits"]["monthly_spend_dollars"] == "12.50"
    assert organization["limits"]["tokens_per_day"] is None
    for reference in ("acme", organization["id"]):
        assert (await tenancy.as_operator("GET", f"/admin/organizations/{reference}")).json() == organization
    projects = (await tenancy.as_operator("GET", "/admin/organizations/acme/projects")).json()
    assert [project["id"] for project in projects["data"]] == [organization["default_project_id"]]
    key = (await tenancy.as_operator("POST", "/admin/organizations/acme/api_keys", {"name": "first"})).json()
    principal = await tenancy.authenticator.tenant(key["value"])
    assert principal.organization == organization["id"]
    listed = (await tenancy.as_operator("GET", "/admin/organizations/acme/api_keys")).json()["data"]
    assert [(row["id"], row["redacted_value"]) for row in listed] == [(key["id"], f"ty-...{key['value'][-4:]}")]
    assert "value" not in listed[0]


async def test_only_hashes_of_keys_are_stored_and_every_change_is_in_the_audit_log(tenancy: Tenancy) -> None:
    _, secret = await tenancy.new_tenant("acme")
    key = (await tenancy.authenticator.tenant(secret)).key
    assert (await tenancy.as_operator("DELETE", f"/admin/organizations/acme/api_keys/{key}")).json()["deleted"]
    async with tenancy.database.reading() as session:
        rows = [vars(row) for row in await session.scalars(select(ApiKeyRow))]
        audit = list(await session.scalars(select(AuditRow).order_by(AuditRow.id)))
    assert secret not in str(rows)
    assert secret[3:-4] not in str(rows)
    assert [row.action for row in audit] == [
        "operator_key.created",
        "organization.created",
        "api_key.created",
        "api_key.deleted",
    ]
    operator = await tenancy.authenticator.operator(tenancy.operator_secret)
    assert (audit[-1].actor, audit[-1].resource) == (operator.key, key)


async def test_the_audit_log_is_read_newest_first_and_by_organization(tenancy: Tenancy) -> None:
    organization, _ = await tenancy.new_tenant("acme")
    await tenancy.new_tenant("umbra")
    first = (await tenancy.as_operator("GET", "/admin/audit_logs?organization=acme&limit=1")).json()
    assert [(row["type"], row["organization_id"]) for row in first["data"]] == [("api_key.created", organization.id)]
    path = f"/admin/audit_logs?organization=acme&limit=1&after={first['last_id']}"
    second = (await tenancy.as_operator("GET", path)).json()
    assert [row["type"] for row in second["data"]] == ["organization.created"]
    assert (first["has_more"], second["has_more"]) == (True, False)
    assert len((await tenancy.as_operator("GET", "/admin/audit_logs")).json()["data"]) == 5


async def test_an_audit_log_page_that_no_number_names(tenancy: Tenancy) -> None:
    refused = await tenancy.as_operator("GET", f"/admin/audit_logs?after={2**63}")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "after")


@pytest.mark.parametrize(
    "body",
    [
        {"name": "A"},
        {"name": "A", "slug": "Acme"},
        {"name": "A", "slug": "-acme"},
        {"name": "A", "slug": "a:b"},
        {"name": "A", "slug": "a" * 41},
        {"name": "", "slug": "acme"},
        {"name": "A", "slug": "acme", "weight": 0},
        {"name": "A", "slug": "acme", "id": "org_mine"},
        {"name": "A", "slug": "acme", "timezone": "Europe/Berlin"},  # all months are UTC's
        {"name": "A", "slug": "acme", "limits": {"requests_per_minute": -1}},
        {"name": "A", "slug": "acme", "limits": {"monthly_spend_dollars": "1e-12"}},
        {"name": "A", "slug": "acme", "limits": {"monthly_spend_dollars": "-1"}},
    ],
)
async def test_a_bad_organization_is_refused_with_the_field(tenancy: Tenancy, body: dict[str, object]) -> None:
    refused = await tenancy.as_operator("POST", "/admin/organizations", body)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"]


@pytest.mark.parametrize("project", ["\x00", "p" * 1_000])
async def test_a_project_that_can_be_none_is_refused(tenancy: Tenancy, project: str) -> None:
    await tenancy.as_operator("POST", "/admin/organizations", {"name": "A", "slug": "acme"})
    body = {"name": "k", "project": project}
    refused = await tenancy.as_operator("POST", "/admin/organizations/acme/api_keys", body)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "project")


async def test_a_slug_is_given_once(tenancy: Tenancy) -> None:
    await tenancy.new_tenant("acme")
    await tenancy.as_operator("PATCH", "/admin/organizations/acme", {"archived": True})
    refused = await tenancy.as_operator("POST", "/admin/organizations", {"name": "B", "slug": "acme"})
    assert refused.status_code == 409
    assert "acme" in refused.json()["error"]["message"]


async def test_lists_are_paged(tenancy: Tenancy) -> None:
    ids = [(await tenancy.new_tenant(f"org-{number}"))[0].id for number in range(5)]
    seen, after = [], ""
    for _ in range(3):
        one = (await tenancy.as_operator("GET", f"/admin/organizations?limit=2{after}")).json()
        seen += [row["id"] for row in one["data"]]
        after = f"&after={one['last_id']}"
    assert sorted(seen) == sorted(ids)
    assert one["has_more"] is False
    unknown = await tenancy.as_operator("GET", "/admin/organizations?after=org_none")
    assert unknown.status_code == 404


async def test_an_organization_that_billing_did_not_hear_of_is_announced_later(tenancy: Tenancy) -> None:
    tenancy.billing.broken = True
    organization, _ = await tenancy.new_tenant("acme")
    tenancy.billing.broken = False
    await tenancy.run_loops_once()
    assert tenancy.billing.heard == [organization.id]
    await tenancy.run_loops_once()
    assert tenancy.billing.heard == [organization.id]


async def test_operator_routes_refuse_everybody_else(tenancy: Tenancy) -> None:
    _, secret = await tenancy.new_tenant("acme")
    routes = [
        ("POST", "/admin/organizations"),
        ("GET", "/admin/organizations"),
        ("GET", "/admin/organizations/acme"),
        ("PATCH", "/admin/organizations/acme"),
        ("GET", "/admin/organizations/acme/projects"),
        ("POST", "/admin/organizations/acme/projects"),
        ("PATCH", "/admin/organizations/acme/projects/proj_x"),
        ("GET", "/admin/organizations/acme/api_keys"),
        ("POST", "/admin/organizations/acme/api_keys"),
        ("GET", "/admin/organizations/acme/api_keys/key_x"),
        ("PATCH", "/admin/organizations/acme/api_keys/key_x"),
        ("DELETE", "/admin/organizations/acme/api_keys/key_x"),
        ("GET", "/admin/audit_logs"),
        ("GET", "/admin/operator_keys"),
        ("POST", "/admin/operator_keys"),
        ("DELETE", "/admin/operator_keys/key_x"),
    ]
    body = {"name": "A", "slug": "b"}
    for method, path in routes:
        assert (await tenancy.http.request(method, path, json=body, headers=bearer(secret))).status_code == 403, path
        assert (await tenancy.http.request(method, path, json=body)).status_code == 401, path


async def test_the_last_operator_key_cannot_be_ended(tenancy: Tenancy) -> None:
    second = (await tenancy.as_operator("POST", "/admin/operator_keys", {"name": "second"})).json()
    first = (await tenancy.authenticator.operator(tenancy.operator_secret)).key
    assert (await tenancy.as_operator("DELETE", f"/admin/operator_keys/{second['id']}")).status_code == 200
    assert (await tenancy.as_operator("DELETE", f"/admin/operator_keys/{second['id']}")).status_code == 200
    body = {"name": "short", "expires_in_seconds": 60}
    assert (await tenancy.as_operator("POST", "/admin/operator_keys", body)).status_code == 200
    tenancy.clock.advance(60)
    listed = (await tenancy.as_operator("GET", "/admin/operator_keys")).json()["data"]
    assert [row["id"] for row in listed] == [first], "what has expired is not listed"
    refused = await tenancy.as_operator("DELETE", f"/admin/operator_keys/{first}")
    assert refused.status_code == 409
    assert (await tenancy.http.get("/admin/operator_keys", headers=bearer(second["value"]))).status_code == 401


async def test_of_operator_keys_that_end_at_the_same_moment_one_is_left(tenancy: Tenancy) -> None:
    keys = [(await tenancy.authenticator.operator(tenancy.operator_secret)).key]
    keys += [(await tenancy.keys.create_operator(name=f"k{number}", actor=BOOTSTRAP))[0].id for number in range(5)]
    ends = [tenancy.keys.revoke_operator(key, actor=BOOTSTRAP) for key in keys]
    outcomes = await asyncio.gather(*ends, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes if outcome is not None] == [Conflict]
    assert len(await tenancy.operator_store.operator_keys()) == 1


async def test_a_tenant_sees_and_ends_its_own_keys_in_openai_s_shapes(tenancy: Tenancy) -> None:
    organization, secret = await tenancy.new_tenant("acme")
    headers = bearer(secret)
    projects = (await tenancy.http.get(OWN, headers=headers)).json()
    assert [row["object"] for row in projects["data"]] == ["organization.project"]
    path = f"{OWN}/{organization.default_project_id}/api_keys"
    made = (await tenancy.http.post(path, json={"name": "second"}, headers=headers)).json()
    assert (await tenancy.http.get(path, headers=bearer(made["value"]))).status_code == 200
    listed = (await tenancy.http.get(path, headers=headers)).json()["data"]
    assert {row["name"] for row in listed} == {"first", "second"}
    assert (await tenancy.http.get(f"{path}/{made['id']}", headers=headers)).json()["name"] == "second"
    assert (await tenancy.http.delete(f"{path}/{made['id']}", headers=headers)).json()["deleted"] is True
    assert (await tenancy.http.get(path, headers=bearer(made["value"]))).status_code == 401


async def test_a_limited_key_cannot_make_a_free_one(tenancy: Tenancy) -> None:
    organization, _ = await tenancy.new_tenant("acme")
    body = {"name": "limited", "limits": {"requests_per_minute": 1}}
    limited = (await tenancy.as_operator("POST", "/admin/organizations/acme/api_keys", body)).json()["value"]
    path = f"{OWN}/{organization.default_project_id}/api_keys"
    refused = await tenancy.http.post(path, json={"name": "free"}, headers=bearer(limited))
    assert refused.status_code == 403
    with_limits = {"name": "free", "limits": {}}
    assert (await tenancy.http.post(path, json=with_limits, headers=bearer(limited))).status_code == 403


async def test_no_route_shows_or_changes_another_organization_s_things(tenancy: Tenancy) -> None:
    """I7: another organization's project or key answers exactly as one that does not exist."""
    victim, victim_secret = await tenancy.new_tenant("victim")
    _, thief_secret = await tenancy.new_tenant("thief")
    thief = await tenancy.authenticator.tenant(thief_secret)
    key = (await tenancy.authenticator.tenant(victim_secret)).key
    routes = [
        ("GET", f"{OWN}/PROJECT"),
        ("GET", f"{OWN}/PROJECT/api_keys"),
        ("POST", f"{OWN}/PROJECT/api_keys"),
        ("GET", f"{OWN}/PROJECT/api_keys/KEY"),
        ("DELETE", f"{OWN}/PROJECT/api_keys/KEY"),
        ("GET", f"{OWN}/{thief.project}/api_keys/KEY"),
        ("DELETE", f"{OWN}/{thief.project}/api_keys/KEY"),
        ("GET", f"{OWN}?after=PROJECT"),
        ("GET", f"{OWN}/{thief.project}/api_keys?after=KEY"),
    ]
    for method, path in routes:
        theirs = path.replace("PROJECT", victim.default_project_id).replace("KEY", key)
        none = path.replace("PROJECT", "proj_none").replace("KEY", "key_none")
        found = await tenancy.http.request(method, theirs, json={"name": "x"}, headers=bearer(thief_secret))
        unknown = await tenancy.http.request(method, none, json={"name": "x"}, headers=bearer(thief_secret))
        assert found.status_code == unknown.status_code == 404, path
        blind = found.text.replace(victim.default_project_id, "proj_none").replace(key, "key_none")
        assert blind == unknown.text
    listed = (await tenancy.http.get(OWN, headers=bearer(thief_secret))).json()["data"]
    assert [row["id"] for row in listed] == [thief.project]
    assert (await tenancy.authenticator.tenant(victim_secret)).key == key
    # By the operator too: a key is only ever found under its own organization.
    for method in ("GET", "PATCH", "DELETE"):
        answer = await tenancy.as_operator(method, f"/admin/organizations/thief/api_keys/{key}", {"name": "x"})
        assert answer.status_code == 404


async def test_a_key_sees_only_the_keys_of_its_own_project(tenancy: Tenancy) -> None:
    _, secret = await tenancy.new_tenant("acme")
    other = (await tenancy.as_operator("POST", "/admin/organizations/acme/projects", {"name": "other"})).json()["id"]
    assert (await tenancy.http.get(f"{OWN}/{other}/api_keys", headers=bearer(secret))).status_code == 403
    body = {"name": "k", "project": other}
    key = (await tenancy.as_operator("POST", "/admin/organizations/acme/api_keys", body)).json()
    assert (await tenancy.http.get(f"{OWN}/{other}/api_keys", headers=bearer(key["value"]))).status_code == 200
    archived = await tenancy.as_operator("PATCH", f"/admin/organizations/acme/projects/{other}", {"archived": True})
    assert archived.json()["status"] == "archived"
    assert (await tenancy.http.get(OWN, headers=bearer(key["value"]))).status_code == 401
    assert (await tenancy.as_operator("POST", "/admin/organizations/acme/api_keys", body)).status_code == 404
