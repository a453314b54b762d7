"""A plan's prices come into force by lead time, in what is cached of a caller as in what the ledger asks for."""

from collections.abc import Sequence

from support.tenancy_stand import Tenancy
from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import LIST_PRICE, PRICE_LEAD_MS, PriceStep, multiplier_at

PLANS = "/admin/plans"
ACME = "/admin/organizations/acme"
LEAD_S = PRICE_LEAD_MS / 1000
MINUTE_MS = 60_000
CHEAP = {
    "name": "cheap",
    "price_multiplier": "0.80",
    "service_tiers": {"priority": {"weight": 9, "price_multiplier": "2"}},
}


async def in_ledger(tenancy: Tenancy, organization: OrganizationId) -> Sequence[PriceStep]:
    """Return what the ledger asks for."""
    async with tenancy.database.reading() as session:
        return (await tenancy.operator_store.price_steps(session, [organization]))[organization]


async def multipliers(tenancy: Tenancy, organization: OrganizationId, secret: str, tier: str = "default") -> list[int]:
    """Return what the caller pays now and at each of the next 40 minutes; the ledger must say the same."""
    caller = await tenancy.deaf_process().tenant(secret)
    steps = await in_ledger(tenancy, organization)
    now_ms = tenancy.clock.now_ms()
    moments = [now_ms + minute * MINUTE_MS for minute in range(41)]
    found = [multiplier_at(caller.prices, tier, at_ms) for at_ms in moments]
    assert found == [multiplier_at(steps, tier, at_ms) for at_ms in moments]
    return list(found)


async def test_a_new_organization_pays_by_its_plan_at_once(tenancy: Tenancy) -> None:
    made = (await tenancy.as_operator("POST", PLANS, CHEAP)).json()
    assert (made["price_multiplier"], made["prices_from_ms"]) == ("0.8", 0)
    assert made["service_tiers"] == CHEAP["service_tiers"]
    assert (await tenancy.as_operator("GET", f"{PLANS}/cheap")).json() == made
    body = {"name": "Acme", "slug": "acme", "plan": "cheap"}
    acme = (await tenancy.as_operator("POST", "/admin/organizations", body)).json()
    assert acme["prices_from_ms"] == 0
    secret = (await tenancy.as_operator("POST", f"{ACME}/api_keys", {"name": "first"})).json()["value"]
    owner = OrganizationId(acme["id"])
    assert await multipliers(tenancy, owner, secret) == [8_000] * 41
    assert await multipliers(tenancy, owner, secret, "priority") == [20_000] * 41
    assert (await tenancy.deaf_process().tenant(secret)).weight_of("priority") == 9


async def test_an_organization_that_moves_pays_by_its_new_plan_after_the_lead_time(tenancy: Tenancy) -> None:
    await tenancy.as_operator("POST", PLANS, CHEAP)
    acme, secret = await tenancy.new_tenant("acme")
    moved = (await tenancy.as_operator("PATCH", ACME, {"plan": "cheap"})).json()
    assert moved["prices_from_ms"] == tenancy.clock.now_ms() + PRICE_LEAD_MS
    assert await multipliers(tenancy, acme.id, secret) == [LIST_PRICE] * 15 + [8_000] * 26
    again = (await tenancy.as_operator("PATCH", ACME, {"plan": "cheap"})).json()
    assert again["prices_from_ms"] == moved["prices_from_ms"], "it is on it already"
    tenancy.clock.advance(5 * 60)
    await tenancy.as_operator("PATCH", ACME, {"plan": None})
    assert await multipliers(tenancy, acme.id, secret) == [LIST_PRICE] * 10 + [8_000] * 5 + [LIST_PRICE] * 26
    tenancy.clock.advance(LEAD_S)
    caller = await tenancy.deaf_process().tenant(secret)
    assert caller.prices == (PriceStep(tenancy.clock.now_ms(), LIST_PRICE),), "what is over is not kept in memory"
    assert len(await in_ledger(tenancy, acme.id)) == 2, "the ledger has it for ever"


async def test_a_changed_plan_comes_into_force_after_the_lead_time(tenancy: Tenancy) -> None:
    await tenancy.as_operator("POST", PLANS, CHEAP)
    acme, secret = await tenancy.new_tenant("acme")
    await tenancy.as_operator("PATCH", ACME, {"plan": "cheap"})
    tenancy.clock.advance(LEAD_S)
    before = (await tenancy.deaf_process().tenant(secret)).revision
    changed = (await tenancy.as_operator("PATCH", f"{PLANS}/cheap", {"price_multiplier": "0.5"})).json()
    assert changed["prices_from_ms"] == tenancy.clock.now_ms() + PRICE_LEAD_MS
    assert (await tenancy.deaf_process().tenant(secret)).revision == before + 1
    assert await multipliers(tenancy, acme.id, secret) == [8_000] * 15 + [5_000] * 26
    assert await multipliers(tenancy, acme.id, secret, "priority") == [20_000] * 41
    tiers = {"service_tiers": {"priority": None, "flex": {"weight": 1, "price_multiplier": "0.1"}}}
    shown = (await tenancy.as_operator("PATCH", f"{PLANS}/cheap", tiers)).json()
    assert list(shown["service_tiers"]) == ["flex"]
    assert shown["prices_from_ms"] == changed["prices_from_ms"] + 1, "no two changes have one moment"
    assert await multipliers(tenancy, acme.id, secret, "flex") == [8_000] * 15 + [5_000] + [1_000] * 25
    for nothing in (
        {"weight": 3},
        {"price_multiplier": "0.50"},
        {"service_tiers": {"flex": {"weight": 7, "price_multiplier": "0.1"}}},
    ):
        same = (await tenancy.as_operator("PATCH", f"{PLANS}/cheap", nothing)).json()
        assert same["prices_from_ms"] == shown["prices_from_ms"], "prices stay as they are"
    assert (await tenancy.deaf_process().tenant(secret)).tiers == {"flex": 7}


async def test_what_a_plan_cost_is_known_after_its_end(tenancy: Tenancy) -> None:
    await tenancy.as_operator("POST", PLANS, CHEAP)
    acme, _ = await tenancy.new_tenant("acme")
    await tenancy.as_operator("PATCH", ACME, {"plan": "cheap"})
    begun_ms = tenancy.clock.now_ms() + PRICE_LEAD_MS
    tenancy.clock.advance(3_600)
    await tenancy.as_operator("PATCH", ACME, {"plan": None})
    assert (await tenancy.as_operator("DELETE", f"{PLANS}/cheap")).status_code == 200
    steps = await in_ledger(tenancy, acme.id)
    assert [multiplier_at(steps, "default", begun_ms + shift) for shift in (-1, 0)] == [LIST_PRICE, 8_000]


async def test_the_audit_log_tells_of_prices_and_tiers(tenancy: Tenancy) -> None:
    await tenancy.as_operator("POST", PLANS, CHEAP)
    await tenancy.as_operator(
        "PATCH", f"{PLANS}/cheap", {"price_multiplier": "1.25", "service_tiers": {"priority": None}}
    )
    changed, created = [
        one
        for one in (await tenancy.as_operator("GET", "/admin/audit_logs")).json()["data"]
        if one["type"].startswith("plan.")
    ]
    assert created["details"]["price_multiplier"] == "0.8"
    assert created["details"]["service_tiers"] == CHEAP["service_tiers"]
    assert changed["details"] == {
        "price_multiplier": "1.25",
        "service_tiers": {},
        "prices_from_ms": tenancy.clock.now_ms() + PRICE_LEAD_MS,
    }
    assert changed["before"] == {
        "price_multiplier": "0.8",
        "service_tiers": CHEAP["service_tiers"],
        "prices_from_ms": 0,
    }


async def test_an_organization_that_was_never_on_a_plan_pays_the_list_price(tenancy: Tenancy) -> None:
    acme, secret = await tenancy.new_tenant("acme")
    assert (await tenancy.deaf_process().tenant(secret)).prices == ()
    assert await in_ledger(tenancy, acme.id) == ()
