"""What a key is for, from where, with which models and until when; and who may say so."""

import asyncio

import pytest

from support.tenancy_stand import Tenancy, bearer
from tokenyard.core.errors import Conflict, PermissionDenied, TokenyardError, Unauthenticated
from tokenyard.core.principal import KeyScope, Limits
from tokenyard.tenancy.api_keys import BOOTSTRAP, ApiKeys
from tokenyard.tenancy.keys import Credential
from tokenyard.tenancy.store import TenancyStore

ACME = "/admin/organizations/acme"
KEYS = f"{ACME}/api_keys"
RULES: dict[str, object] = {
    "scopes": ["inference", "files"],
    "models": ["small", "ft:small:*"],
    "addresses": ["10.0.0.0/8", "2001:db8::1/128"],
    "model_limits": {"small": {"requests_per_minute": 3}},
}


async def code_of(tenancy: Tenancy, secret: str, address: str) -> str | None:
    try:
        await tenancy.authenticator.tenant(secret, address)
    except TokenyardError as error:
        return error.code
    return None


async def test_a_key_with_rules_is_shown_told_and_held_to_them(tenancy: Tenancy) -> None:
    await tenancy.new_tenant("acme")
    made = (await tenancy.as_operator("POST", KEYS, {"name": "k", **RULES})).json()
    shown = {name: made[name] for name in RULES}
    assert shown["model_limits"]["small"]["requests_per_minute"] == 3
    assert {**shown, "model_limits": RULES["model_limits"]} == RULES
    caller = await tenancy.authenticator.tenant(made["value"], "10.1.2.3")
    assert caller.scopes == frozenset({KeyScope.INFERENCE, KeyScope.FILES})
    limits = {(scope.scope, scope.id): scope.limits for scope in caller.using("small").limits}
    assert limits["model", f"{made['id']}/small"] == Limits(requests_per_minute=3)
    assert caller.using("ft:small:acme:x:1").limits == caller.limits
    with pytest.raises(PermissionDenied, match="This API key does not have access to model `large`"):
        caller.check_model("large")
    [entry] = (await tenancy.as_operator("GET", "/admin/audit_logs?limit=1")).json()["data"]
    assert {name: entry["details"][name] for name in RULES} == RULES


async def test_a_foreign_address_gets_the_same_answer_whatever_it_asks(tenancy: Tenancy) -> None:
    await tenancy.new_tenant("acme")
    made = (await tenancy.as_operator("POST", KEYS, {"name": "k", "addresses": ["10.0.0.0/8", "2001:db8::/64"]})).json()
    for address in ("10.0.0.1", "::ffff:10.0.0.1", "2001:db8::7"):
        assert await code_of(tenancy, made["value"], address) is None, address
    for address in ("11.0.0.1", "2001:db8:1::7", "", "testclient"):
        assert await code_of(tenancy, made["value"], address) == "ip_not_authorized", address
    with pytest.raises(Unauthenticated, match=r"11\.0\.0\.1"):
        await tenancy.authenticator.fresh_tenant(made["value"], "11.0.0.1")
    body = {"name": "o", "addresses": ["10.0.0.1"]}
    operator = (await tenancy.as_operator("POST", "/admin/operator_keys", body)).json()
    with pytest.raises(Unauthenticated):
        await tenancy.authenticator.operator(operator["value"], "10.0.0.2")
    assert await tenancy.authenticator.operator(operator["value"], "10.0.0.1")


async def test_expiry_needs_no_push_and_says_so(tenancy: Tenancy) -> None:
    await tenancy.new_tenant("acme")
    made = (await tenancy.as_operator("POST", KEYS, {"name": "k", "expires_in_seconds": 60})).json()
    deaf = tenancy.deaf_process()
    assert await deaf.tenant(made["value"])
    tenancy.clock.advance(59)
    assert await deaf.tenant(made["value"])
    tenancy.clock.advance(1)
    with pytest.raises(Unauthenticated) as expired:
        await deaf.tenant(made["value"])
    assert expired.value.code == "api_key_expired"
    assert made["value"][3:-4] not in expired.value.message


async def test_the_end_of_a_key_can_be_moved_and_taken_away(tenancy: Tenancy) -> None:
    organization, secret = await tenancy.new_tenant("acme")
    path = f"{KEYS}/{(await tenancy.authenticator.tenant(secret)).key}"
    now_s = tenancy.clock.now_ms() // 1000
    async with tenancy.other_process() as process:
        await process.authenticator.tenant(secret)
        changed = await tenancy.as_operator("PATCH", path, {"expires_in_seconds": 60})
        assert changed.json()["expires_at"] == now_s + 60
        assert (await tenancy.as_operator("PATCH", path, {"name": "same end"})).json()["expires_at"] == now_s + 60
        await process.is_told(organization.id)
        await process.authenticator.tenant(secret)
        tenancy.clock.advance(60)
        with pytest.raises(Unauthenticated):
            await process.authenticator.tenant(secret)
        assert (await tenancy.as_operator("PATCH", path, {"expires_in_seconds": None})).json()["expires_at"] is None
        await process.is_told(organization.id, 2)
        assert await process.authenticator.tenant(secret)
    [entry] = (await tenancy.as_operator("GET", "/admin/audit_logs?limit=1")).json()["data"]
    assert (entry["before"], entry["details"]) == ({"expires_at": now_s + 60}, {"expires_at": None})


@pytest.mark.parametrize("name", RULES)
async def test_a_changed_rule_is_in_force_in_every_process_and_null_takes_it_away(tenancy: Tenancy, name: str) -> None:
    organization, secret = await tenancy.new_tenant("acme")
    key = (await tenancy.authenticator.tenant(secret)).key

    def seen(credential: Credential) -> object:
        rules = ("scopes", "models", "model_limits")
        return credential.addresses is None, *(getattr(credential.holder, rule) for rule in rules)

    async def look_up() -> object:
        found = await tenancy.operator_store.credential(tenancy.hasher.hashes(secret))
        assert found is not None
        return seen(found)

    free = await look_up()
    async with tenancy.other_process() as process:
        before = await process.authenticator.tenant(secret, "10.0.0.1")
        assert (await tenancy.as_operator("PATCH", f"{KEYS}/{key}", {name: RULES[name]})).status_code == 200
        await process.is_told(organization.id)
        after = await process.authenticator.tenant(secret, "10.0.0.1")
        assert after.revision == before.revision + 1
        assert await look_up() != free
        taken = {"small": None} if name == "model_limits" else None
        assert (await tenancy.as_operator("PATCH", f"{KEYS}/{key}", {name: taken})).status_code == 200
        assert await look_up() == free


async def test_a_tenant_makes_and_changes_keys_of_its_project(tenancy: Tenancy) -> None:
    organization, secret = await tenancy.new_tenant("acme")
    path = f"/v1/organization/projects/{organization.default_project_id}/api_keys"
    made = await tenancy.http.post(path, json={"name": "app", **RULES}, headers=bearer(secret))
    assert made.status_code == 200, made.text
    body = {"scopes": ["inference"], "limits": {"concurrency": 2}}
    changed = await tenancy.http.post(f"{path}/{made.json()['id']}", json=body, headers=bearer(secret))
    assert (changed.json()["scopes"], changed.json()["limits"]["concurrency"]) == (["inference"], 2)
    entries = (await tenancy.http.get("/v1/organization/audit_logs", headers=bearer(secret))).json()["data"]
    assert entries[0]["before"] == {"limits": {}, "scopes": ["inference", "files"]}
    other, stranger = await tenancy.new_tenant("other")
    refused = await tenancy.http.post(f"{path}/{made.json()['id']}", json=body, headers=bearer(stranger))
    assert refused.status_code == 404
    theirs = f"/v1/organization/projects/{other.default_project_id}/api_keys/{made.json()['id']}"
    assert (await tenancy.http.post(theirs, json=body, headers=bearer(stranger))).status_code == 404
    log = (await tenancy.http.get("/v1/organization/audit_logs", headers=bearer(stranger))).json()["data"]
    assert {entry["organization_id"] for entry in log} == {other.id}


@pytest.mark.parametrize("name", [*RULES, "limits", "expires_in_seconds"])
async def test_a_restricted_key_cannot_free_itself(tenancy: Tenancy, name: str) -> None:
    rules = {**RULES, "addresses": ["0.0.0.0/0"], "limits": {"concurrency": 1}, "expires_in_seconds": 60}
    organization, _ = await tenancy.new_tenant("acme")
    made = (await tenancy.as_operator("POST", KEYS, {"name": "k", name: rules[name]})).json()
    path = f"/v1/organization/projects/{organization.default_project_id}/api_keys"
    for where in (path, f"{path}/{made['id']}"):
        refused = await tenancy.http.post(where, json={"name": "free"}, headers=bearer(made["value"]))
        assert refused.status_code == 403, where


async def test_a_scoped_key_reaches_no_route_of_another_scope(tenancy: Tenancy) -> None:
    organization, _ = await tenancy.new_tenant("acme")
    made = (await tenancy.as_operator("POST", KEYS, {"name": "k", "scopes": ["inference"]})).json()
    project = f"/v1/organization/projects/{organization.default_project_id}"
    for path in ("/v1/organization/projects", project, f"{project}/api_keys", "/v1/organization/audit_logs"):
        refused = await tenancy.http.get(path, headers=bearer(made["value"]))
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "missing_scope"), path


async def test_an_organization_has_no_more_keys_than_one_may_have(tenancy: Tenancy) -> None:
    organization, secret = await tenancy.new_tenant("acme")
    await tenancy.new_tenant("other")
    few = TenancyStore(tenancy.database, tenancy.clock, max_keys=3)
    keys = ApiKeys(
        store=few,
        operator_store=tenancy.operator_store,
        push=tenancy.push,
        hasher=tenancy.hasher,
        clock=tenancy.clock,
    )

    async def make(*, expires_in_s: int | None = None) -> None:
        project = organization.default_project_id
        await keys.create(organization.id, project, name="k", actor=BOOTSTRAP, expires_in_s=expires_in_s)

    made = await asyncio.gather(*(make(expires_in_s=10) for _ in range(4)), return_exceptions=True)
    refused = [outcome for outcome in made if outcome is not None]
    assert [type(outcome) for outcome in refused] == [Conflict, Conflict], "also of the same moment"
    assert isinstance(refused[0], Conflict)
    assert refused[0].code == "too_many_keys"
    tenancy.clock.advance(10)
    await make()
    await make()
    with pytest.raises(Conflict):
        await make()
    await keys.revoke(organization.id, (await tenancy.authenticator.tenant(secret)).key, actor=BOOTSTRAP)
    await make()


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"scopes": []}, "scopes"),
        ({"scopes": ["everything"]}, "scopes.0"),
        ({"addresses": []}, "addresses"),
        ({"addresses": ["10.0.0.1/8"]}, "addresses.0"),
        ({"addresses": ["example.com"]}, "addresses.0"),
        ({"addresses": ["::ffff:10.0.0.0/104"]}, "addresses.0"),
        ({"models": ["a{b}"]}, "models.0"),
        ({"model_limits": {"small": {"monthly_spend_dollars": "1"}}}, "model_limits.small.monthly_spend_dollars"),
        ({"model_limits": {f"m{at}": {"concurrency": 1} for at in range(51)}}, "model_limits"),
    ],
)
async def test_a_bad_rule_is_refused_with_the_field(tenancy: Tenancy, body: dict[str, object], param: str) -> None:
    _, secret = await tenancy.new_tenant("acme")
    key = (await tenancy.authenticator.tenant(secret)).key
    for method, path in (("POST", KEYS), ("PATCH", f"{KEYS}/{key}")):
        refused = await tenancy.as_operator(method, path, {"name": "k", **body})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)


async def test_limits_of_models_add_up_over_changes_to_a_bound(tenancy: Tenancy) -> None:
    _, secret = await tenancy.new_tenant("acme")
    path = f"{KEYS}/{(await tenancy.authenticator.tenant(secret)).key}"
    for start in (0, 25):
        limits = {f"m{at}": {"concurrency": 1} for at in range(start, start + 25)}
        assert (await tenancy.as_operator("PATCH", path, {"model_limits": limits})).status_code == 200
    more = {"model_limits": {"m0": {"tokens_per_day": 5}, "other": {"concurrency": 1}}}
    refused = await tenancy.as_operator("PATCH", path, more)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "model_limits")
    del more["model_limits"]["other"]
    found = (await tenancy.as_operator("PATCH", path, more)).json()["model_limits"]
    assert len(found) == 50
    assert (found["m0"]["concurrency"], found["m0"]["tokens_per_day"]) == (1, 5)
