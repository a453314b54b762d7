"""Plans over real SQL and a real Valkey: made, given, changed for all who are on them, and never pulled away."""

import asyncio

import msgspec
import pytest

from support.tenancy_stand import Tenancy
from tokenyard.core.errors import PermissionDenied
from tokenyard.core.ids import OrganizationId, PlanId, new_organization_id
from tokenyard.core.money import PRICE_LEAD_MS, from_dollars
from tokenyard.core.principal import Limits, LocalShare
from tokenyard.core.training import TrainingLimits, TrainingTerms
from tokenyard.limits.revisions import RedisRevisions
from tokenyard.tenancy.changes import AT_ONCE, PlanRevised, TenancyCarrier

PLANS = "/admin/plans"
ACME = "/admin/organizations/acme"
PRO = {
    "name": "pro",
    "weight": 4,
    "limits": {"requests_per_minute": 60, "tokens_per_day": 1000, "monthly_spend_dollars": "25"},
    "models": ["small", "ft:small:*"],
}


async def organization_limits(tenancy: Tenancy, secret: str) -> Limits:
    return (await tenancy.deaf_process().tenant(secret)).limits[-1].limits


async def test_a_plan_from_its_making_to_its_end(tenancy: Tenancy) -> None:
    made = (await tenancy.as_operator("POST", PLANS, PRO)).json()
    assert made["limits"]["monthly_spend_dollars"] == "25.00"
    assert made["limits"]["concurrency"] is None
    for reference in ("pro", made["id"]):
        assert (await tenancy.as_operator("GET", f"{PLANS}/{reference}")).json() == made
    await tenancy.as_operator("POST", PLANS, {"name": "free"})
    page = (await tenancy.as_operator("GET", f"{PLANS}?limit=1")).json()
    rest = (await tenancy.as_operator("GET", f"{PLANS}?after={page['last_id']}")).json()
    assert {row["name"] for row in (*page["data"], *rest["data"])} == {"pro", "free"}
    assert (await tenancy.as_operator("POST", PLANS, PRO)).json()["error"]["param"] == "name"
    assert (await tenancy.as_operator("PATCH", f"{PLANS}/free", {"name": "pro"})).status_code == 409
    assert (await tenancy.as_operator("DELETE", f"{PLANS}/free")).json()["deleted"] is True
    assert (await tenancy.as_operator("GET", f"{PLANS}/free")).status_code == 404


async def test_an_organization_has_what_its_plan_says_and_states_its_own_over_it(tenancy: Tenancy) -> None:
    await tenancy.as_operator("POST", PLANS, PRO)
    organization, secret = await tenancy.new_tenant("acme")
    shown = (await tenancy.as_operator("PATCH", ACME, {"plan": "pro"})).json()
    assert (shown["plan_id"][:5], shown["weight"], shown["limits"]["requests_per_minute"]) == ("plan_", None, None)
    caller = await tenancy.deaf_process().tenant(secret)
    spend = from_dollars("25")
    assert caller.limits[-1].limits == Limits(requests_per_minute=60, tokens_per_day=1000, monthly_spend=spend)
    assert caller.weight == 4
    limits_of = tenancy.store.monthly_limits
    assert await limits_of(organization.id, caller.project, caller.key) == {organization.id: spend}
    with pytest.raises(PermissionDenied):
        caller.check_model("large")
    own = {"weight": 2, "models": ["*"], "limits": {"requests_per_minute": 5}}
    await tenancy.as_operator("PATCH", ACME, own)
    caller = await tenancy.deaf_process().tenant(secret)
    assert caller.limits[-1].limits == Limits(requests_per_minute=5, tokens_per_day=1000, monthly_spend=spend)
    assert caller.weight == 2
    caller.check_model("large")
    back = {"weight": None, "models": None, "limits": {"requests_per_minute": None}, "plan": None}
    await tenancy.as_operator("PATCH", ACME, back)
    caller = await tenancy.deaf_process().tenant(secret)
    assert (caller.limits[-1].limits, caller.weight, caller.models) == (Limits(), 1, ())


async def test_a_new_organization_may_be_on_a_plan(tenancy: Tenancy) -> None:
    made = (await tenancy.as_operator("POST", PLANS, PRO)).json()
    body = {"name": "Acme", "slug": "acme", "plan": "pro"}
    organization = (await tenancy.as_operator("POST", "/admin/organizations", body)).json()
    assert organization["plan_id"] == made["id"]
    unknown = await tenancy.as_operator("POST", "/admin/organizations", {**body, "slug": "other", "plan": "none"})
    assert unknown.status_code == 404
    assert (await tenancy.as_operator("GET", "/admin/organizations/other")).status_code == 404


async def test_a_plan_may_have_a_local_share(tenancy: Tenancy) -> None:
    stated = {"percent": 20, "spend_dollars": "5.00"}
    made = (await tenancy.as_operator("POST", PLANS, {**PRO, "local_share": stated})).json()
    assert made["local_share"] == stated
    _, secret = await tenancy.new_tenant("acme")
    assert (await tenancy.authenticator.tenant(secret)).local_share is None
    await tenancy.as_operator("PATCH", ACME, {"plan": "pro"})
    async with tenancy.other_process() as process:
        assert (await process.authenticator.tenant(secret)).local_share == LocalShare(20, from_dollars("5"))
        await tenancy.as_operator("PATCH", f"{PLANS}/pro", {"local_share": {"percent": 100, "spend_dollars": "0.5"}})
        await process.is_told(made["id"])
        assert (await process.authenticator.tenant(secret)).local_share == LocalShare(100, from_dollars("0.5"))
        await tenancy.as_operator("PATCH", f"{PLANS}/pro", {"weight": 3})
        assert (await process.authenticator.tenant(secret)).local_share is not None
        ended = (await tenancy.as_operator("PATCH", f"{PLANS}/pro", {"local_share": None})).json()
        assert (ended["local_share"], ended["weight"]) == (None, 3)
        await process.is_told(made["id"], times=3)
        assert (await process.authenticator.tenant(secret)).local_share is None
    entries = (await tenancy.as_operator("GET", "/admin/audit_logs")).json()["data"]
    changed = [(entry["before"], entry["details"]) for entry in entries if entry["type"] == "plan.updated"]
    half, fifth = ({"percent": percent, "spend": from_dollars(spend)} for percent, spend in ((100, "0.5"), (20, "5")))
    assert changed == [
        ({"local_share": half}, {"local_share": None}),
        ({"weight": 4}, {"weight": 3}),
        ({"local_share": fifth}, {"local_share": half}),
    ]


async def test_a_plan_may_keep_fine_tuned_models_in_memory(tenancy: Tenancy) -> None:
    made = (await tenancy.as_operator("POST", PLANS, PRO)).json()
    assert made["pinned_adapters"] == 0
    organization, _ = await tenancy.new_tenant("acme")
    await tenancy.new_tenant("umbra")
    await tenancy.as_operator("PATCH", ACME, {"plan": "pro"})
    assert await tenancy.operator_store.pinned_adapters() == {}
    changed = (await tenancy.as_operator("PATCH", f"{PLANS}/pro", {"pinned_adapters": 3})).json()
    assert changed["pinned_adapters"] == 3
    assert await tenancy.operator_store.pinned_adapters() == {organization.id: 3}
    for wrong in (-1, 1001, "3", True):
        assert (await tenancy.as_operator("PATCH", f"{PLANS}/pro", {"pinned_adapters": wrong})).status_code == 400
    await tenancy.as_operator("PATCH", f"{PLANS}/pro", {"pinned_adapters": None, "weight": 4})
    assert await tenancy.operator_store.pinned_adapters() == {organization.id: 3}, "null changes nothing"
    await tenancy.as_operator("PATCH", ACME, {"archived": True})
    assert await tenancy.operator_store.pinned_adapters() == {}
    entries = (await tenancy.as_operator("GET", "/admin/audit_logs")).json()["data"]
    noted = [(entry["before"], entry["details"]) for entry in entries if entry["type"] == "plan.updated"]
    assert ({"pinned_adapters": 0}, {"pinned_adapters": 3}) in noted


async def test_a_plan_may_ask_a_fee_and_a_minimum(tenancy: Tenancy) -> None:
    made = (await tenancy.as_operator("POST", PLANS, {**PRO, "monthly_fee_dollars": "20"})).json()
    assert (made["monthly_fee_dollars"], made["monthly_minimum_dollars"]) == ("20.00", "0.00")
    changed = (await tenancy.as_operator("PATCH", f"{PLANS}/pro", {"monthly_minimum_dollars": "99.5"})).json()
    assert (changed["monthly_fee_dollars"], changed["monthly_minimum_dollars"]) == ("20.00", "99.50")
    assert changed["prices_from_ms"] > made["prices_from_ms"]
    for wrong in ("-1", "0.0000000001", "many", 20, "1000000.01", "10000000000"):
        refused = await tenancy.as_operator("PATCH", f"{PLANS}/pro", {"monthly_fee_dollars": wrong})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "monthly_fee_dollars")
    entries = (await tenancy.as_operator("GET", "/admin/audit_logs")).json()["data"]
    [noted] = [entry for entry in entries if entry["type"] == "plan.updated"]
    assert (noted["before"]["monthly_minimum"], noted["details"]["monthly_minimum"]) == (0, 99_500_000_000)


async def test_an_archived_organization_is_asked_nothing(tenancy: Tenancy) -> None:
    await tenancy.as_operator("POST", PLANS, {**PRO, "monthly_fee_dollars": "20"})
    organization, _ = await tenancy.new_tenant("acme")
    for change in ({"plan": "pro"}, {"archived": True}, {"archived": True}, {"archived": False}, {"plan": "pro"}):
        assert (await tenancy.as_operator("PATCH", ACME, change)).status_code == 200
    async with tenancy.database.reading() as session:
        steps = await tenancy.operator_store.fee_steps(session, organization.id)
        assert await tenancy.operator_store.with_fees(session, after="", limit=9) == [organization.id]
        assert await tenancy.operator_store.with_fees(session, after=organization.id, limit=9) == []
    assert [(step.plan, step.fee) for step in steps] == [("pro", 20 * 10**9), ("", 0), ("pro", 20 * 10**9)]


async def test_a_plan_may_bound_training(tenancy: Tenancy) -> None:
    made = (await tenancy.as_operator("POST", PLANS, {**PRO, "training": {"running": 2}})).json()
    assert made["training"] == {"running": 2, "unfinished": None, "tokens_per_day": None}
    organization, _ = await tenancy.new_tenant("acme")
    other, _ = await tenancy.new_tenant("umbra")
    await tenancy.as_operator("PATCH", ACME, {"plan": "pro"})
    terms = await tenancy.operator_store.training_terms([organization.id, other.id])
    assert terms[organization.id] == TrainingTerms(weight=made["weight"], limits=TrainingLimits(running=2))
    assert terms[other.id] == TrainingTerms()
    change = {"training": {"running": None, "tokens_per_day": 10**9}}
    changed = (await tenancy.as_operator("PATCH", f"{PLANS}/pro", change)).json()
    assert changed["training"] == {"running": None, "unfinished": None, "tokens_per_day": 10**9}
    for wrong in ({"running": -1}, {"running": "2"}, {"unfinished": 1.5}, {"walking": 1}, 3):
        assert (await tenancy.as_operator("PATCH", f"{PLANS}/pro", {"training": wrong})).status_code == 400
    entries = (await tenancy.as_operator("GET", "/admin/audit_logs")).json()["data"]
    noted = [(entry["before"], entry["details"]) for entry in entries if entry["type"] == "plan.updated"]
    assert noted == [({"training": {"running": 2}}, {"training": {"tokens_per_day": 10**9}})]


async def test_no_organization_states_a_local_share(tenancy: Tenancy) -> None:
    await tenancy.new_tenant("acme")
    refused = await tenancy.as_operator("PATCH", ACME, {"local_share": {"percent": 20, "spend_dollars": "5"}})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "local_share")


async def test_a_plan_that_organizations_are_on_cannot_be_deleted(tenancy: Tenancy) -> None:
    await tenancy.as_operator("POST", PLANS, PRO)
    await tenancy.new_tenant("acme")
    await tenancy.as_operator("PATCH", ACME, {"plan": "pro"})
    refused = await tenancy.as_operator("DELETE", f"{PLANS}/pro")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "conflict")
    await tenancy.as_operator("PATCH", ACME, {"plan": None})
    assert (await tenancy.as_operator("DELETE", f"{PLANS}/pro")).status_code == 200


async def test_a_changed_plan_is_in_force_in_every_process_for_all_who_are_on_it(tenancy: Tenancy) -> None:
    made = (await tenancy.as_operator("POST", PLANS, PRO)).json()
    tenants = {slug: await tenancy.new_tenant(slug) for slug in ("acme", "umbra", "other")}
    for slug in ("acme", "umbra"):
        await tenancy.as_operator("PATCH", f"/admin/organizations/{slug}", {"plan": "pro"})
    async with tenancy.other_process() as process:
        before = {slug: await process.authenticator.tenant(secret) for slug, (_, secret) in tenants.items()}
        await tenancy.as_operator("PATCH", f"{PLANS}/pro", {"limits": {"requests_per_minute": 7}, "weight": 9})
        await process.is_told(made["id"])
        for slug in ("acme", "umbra"):
            organization, secret = tenants[slug]
            caller = await process.authenticator.tenant(secret)
            assert (caller.limits[-1].limits.requests_per_minute, caller.weight, caller.revision) == (7, 9, 3)
            assert await tenancy.revision(organization.id) == 3, "what admission compares"
            assert caller == await tenancy.authenticator.tenant(secret)
        assert await process.authenticator.tenant(tenants["other"][1]) is before["other"]
        await tenancy.as_operator("PATCH", f"{PLANS}/pro", {"name": "professional"})
        assert await tenancy.revision(tenants["acme"][0].id) == 3, "a name is nothing that a caller depends on"


async def test_a_plan_of_very_many_is_told_once_and_raises_every_revision(tenancy: Tenancy) -> None:
    owners = [new_organization_id() for _ in range(AT_ONCE * 2 + 1)]
    older = PlanRevised(PlanId("plan_1"), {owners[0]: 9, owners[1]: 1})
    newer = PlanRevised(PlanId("plan_1"), dict.fromkeys(owners, 5))
    async with tenancy.other_process() as process:
        carrier = TenancyCarrier(tenancy.redis, RedisRevisions(tenancy.redis))
        await carrier.carry([msgspec.json.encode(change).decode() for change in (older, newer, older)])
        await process.is_told("plan_1")
        assert process.told.count(("plan", "plan_1")) == 1
    assert [await tenancy.revision(owner) for owner in owners] == [9] + [5] * (len(owners) - 1)


async def test_a_plan_given_while_it_changes_is_had_as_it_is_in_the_end(tenancy: Tenancy) -> None:
    """Whatever comes first, no process may go on with the old plan at the newest revision."""
    await tenancy.as_operator("POST", PLANS, PRO)
    organization, secret = await tenancy.new_tenant("acme")
    for limit in range(5):
        await tenancy.as_operator("PATCH", ACME, {"plan": None})
        given, changed = await asyncio.gather(
            tenancy.as_operator("PATCH", ACME, {"plan": "pro"}),
            tenancy.as_operator("PATCH", f"{PLANS}/pro", {"limits": {"requests_per_minute": limit}}),
        )
        assert (given.status_code, changed.status_code) == (200, 200)
        assert (await organization_limits(tenancy, secret)).requests_per_minute == limit
        caller = await tenancy.authenticator.tenant(secret)
        assert caller.limits[-1].limits.requests_per_minute == limit
        assert caller.revision == await tenancy.revision(OrganizationId(organization.id))


async def test_changes_of_a_plan_of_the_same_moment_all_hold(tenancy: Tenancy) -> None:
    await tenancy.as_operator("POST", PLANS, {"name": "pro"})
    fields = ("requests_per_minute", "tokens_per_minute", "requests_per_day", "tokens_per_day", "concurrency")
    bodies: list[dict[str, object]] = [{"weight": 7}, {"models": ["a"]}]
    bodies += [{"limits": {field: at}} for at, field in enumerate(fields)]
    answers = await asyncio.gather(*(tenancy.as_operator("PATCH", f"{PLANS}/pro", body) for body in bodies))
    assert {answer.status_code for answer in answers} == {200}
    found = (await tenancy.as_operator("GET", f"{PLANS}/pro")).json()
    assert [found["limits"][field] for field in fields] == list(range(len(fields)))
    assert (found["weight"], found["models"]) == (7, ["a"])


async def test_the_audit_log_tells_what_stood_there_before(tenancy: Tenancy) -> None:
    made = (await tenancy.as_operator("POST", PLANS, PRO)).json()
    await tenancy.as_operator("PATCH", f"{PLANS}/pro", {"limits": {"requests_per_minute": None}, "models": None})
    await tenancy.new_tenant("acme")
    await tenancy.as_operator("PATCH", ACME, {"plan": "pro", "weight": 2})
    entries = (await tenancy.as_operator("GET", "/admin/audit_logs")).json()["data"]
    given, _, changed, created = [one for one in entries if one["type"].startswith(("plan.", "organization."))]
    assert (given["type"], given["details"]) == (
        "organization.updated",
        {
            "plan_id": made["id"],
            "prices_from_ms": tenancy.clock.now_ms() + PRICE_LEAD_MS,
            "weight": 2,
        },
    )
    assert given["before"] == {"plan_id": None, "prices_from_ms": 0, "weight": None}
    assert (changed["type"], changed["resource_id"]) == ("plan.updated", made["id"])
    spend = from_dollars("25")
    assert changed["before"] == {
        "limits": {"requests_per_minute": 60, "tokens_per_day": 1000, "monthly_spend": spend},
        "models": ["small", "ft:small:*"],
    }
    assert changed["details"] == {"limits": {"tokens_per_day": 1000, "monthly_spend": spend}, "models": None}
    assert (created["type"], created["before"], created["details"]["weight"]) == ("plan.created", {}, 4)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"name": "Pro"}, "name"),
        ({"name": "pro", "weight": 0}, "weight"),
        ({"name": "pro", "models": ["a b"]}, "models.0"),
        ({"name": "pro", "models": ["a*b"]}, "models.0"),
        ({"name": "pro", "models": ["m"] * 51}, "models"),
        ({"name": "pro", "limits": {"concurrency": -1}}, "limits.concurrency"),
        ({"name": "pro", "price": 2}, "price"),
        ({"name": "pro", "price_multiplier": 0.8}, "price_multiplier"),
        ({"name": "pro", "price_multiplier": "0.80001"}, "price_multiplier"),
        ({"name": "pro", "price_multiplier": "-1"}, "price_multiplier"),
        ({"name": "pro", "price_multiplier": "10.1"}, "price_multiplier"),
        ({"name": "pro", "service_tiers": {"default": {"weight": 2}}}, "service_tiers.default.[key]"),
        ({"name": "pro", "service_tiers": {"flex": {}}}, "service_tiers.flex.weight"),
        ({"name": "pro", "service_tiers": {"flex": {"weight": 0}}}, "service_tiers.flex.weight"),
        ({"name": "pro", "service_tiers": {"flex": None}}, "service_tiers.flex"),
        ({"name": "pro", "local_share": {"percent": 0, "spend_dollars": "5"}}, "local_share.percent"),
        ({"name": "pro", "local_share": {"percent": 101, "spend_dollars": "5"}}, "local_share.percent"),
        ({"name": "pro", "local_share": {"percent": 20, "spend_dollars": "-5"}}, "local_share.spend_dollars"),
        ({"name": "pro", "local_share": {"percent": 20}}, "local_share.spend_dollars"),
    ],
)
async def test_a_bad_plan_is_refused_with_the_field(tenancy: Tenancy, body: dict[str, object], param: str) -> None:
    refused = await tenancy.as_operator("POST", PLANS, body)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)


async def test_only_operators_see_plans(tenancy: Tenancy) -> None:
    await tenancy.as_operator("POST", PLANS, PRO)
    _, secret = await tenancy.new_tenant("acme")
    for method, path in (
        ("GET", PLANS), ("POST", PLANS), ("GET", f"{PLANS}/pro"), ("PATCH", f"{PLANS}/pro"), ("DELETE", f"{PLANS}/pro"),
    ):  # fmt: skip
        headers = {"authorization": f"Bearer {secret}"}
        assert (await tenancy.http.request(method, path, json=PRO, headers=headers)).status_code == 403
