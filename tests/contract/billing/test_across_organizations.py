"""What the dashboard reads of all organizations; its sums are the organizations' own."""

from typing import Any

import pytest
from redis.asyncio import Redis

from support.billing.api import OPERATOR, OTHER_TENANT, TENANT, Api, billing_api
from support.billing.stand import ACME, GLOBEX, MARCH_MS, MODEL, claims, send, settled, trained, usage, worker
from tokenyard.core.money import to_dollars
from tokenyard.core.redis_keys import usage_stream
from tokenyard.storage.database import Database
from tokenyard_billing.loops import BillingWorker
from tokenyard_billing.usage import operator_routes

DAY_S = 86_400
START_S = MARCH_MS // 1000 // DAY_S * DAY_S
END_S = START_S + 3 * DAY_S
TUNED = "ft:smollm2-135m-instruct:acme:bot:0123"


async def filled(database: Database, redis: Redis) -> None:
    next_day_ms = MARCH_MS + DAY_S * 1000
    await send(
        redis,
        settled(claims("req_a"), usage(100, 10, 40)),
        settled(claims("req_b", model=TUNED), usage(50, 5)),
        settled(claims("req_c", admitted_at_ms=next_day_ms), usage(7, 3)),
        settled(claims("req_d", organization=GLOBEX), usage(999, 999)),
        trained("ftjob-1", 1_000),
    )
    await taken_in(worker(database, redis))


async def taken_in(stand: BillingWorker) -> None:
    await stand.consumer.step()
    await stand.drafter.step()


async def used(api: Api, **params: str) -> list[dict[str, Any]]:
    """Return all results of all pages, each with the start of its bucket."""
    results, page = [], None
    while True:
        more: dict[str, str] = {} if page is None else {"page": page}
        params = {"start_time": str(START_S), "end_time": str(END_S)} | params
        status, body = await api.get("/admin/usage", **params, **more)
        assert status == 200, body
        results += [{**result, "at": bucket["start_time"]} for bucket in body["data"] for result in bucket["results"]]
        page = body["next_page"]
        assert body["has_more"] is (page is not None)
        if page is None:
            return results


async def test_one_sum_or_buckets_by_group(database: Database, redis: Redis) -> None:
    await filled(database, redis)
    async with billing_api(database, redis) as api:
        [everything] = await used(api)
        assert everything["requests"] == 5
        assert (everything["organization"], everything["model"]) == (None, None)
        assert (everything["prompt_tokens"], everything["cached_tokens"]) == (1_156, 40)
        assert (everything["completion_tokens"], everything["trained_tokens"]) == (1_017, 1_000)
        assert everything["amount_dollars"] == to_dollars(everything["amount"])

        by_day = await used(api, bucket_width="1d", group_by="organization", limit="1")
        assert [(found["at"], found["organization"]) for found in by_day] == [
            (START_S, ACME),
            (START_S, GLOBEX),
            (START_S + DAY_S, ACME),
        ]
        assert sum(found["amount"] for found in by_day) == everything["amount"]
        by_hour = await used(api, bucket_width="1h", organization="acme", group_by="model")
        assert {found["model"] for found in by_hour} == {MODEL, TUNED}
        assert len({found["at"] for found in by_hour}) == 2
        [globex] = await used(api, organization=GLOBEX)
        assert sum(found["amount"] for found in by_hour) + globex["amount"] == everything["amount"]


async def test_sums_equal_each_organizations_own(database: Database, redis: Redis) -> None:
    await filled(database, redis)
    async with billing_api(database, redis) as api:
        sums = {found["organization"]: found for found in await used(api, group_by="organization")}
        for owner, key in ((ACME, TENANT), (GLOBEX, OTHER_TENANT)):
            window = {"start_time": str(START_S), "end_time": str(END_S)}
            _, costs = await api.get("/v1/organization/costs", key, **window)
            own = [result["amount"]["exact"] for bucket in costs["data"] for result in bucket["results"]]
            assert to_dollars(sums[owner]["amount"]) == to_dollars(sum(round(float(text) * 1e9) for text in own))
            _, tokens = await api.get("/v1/organization/usage/completions", key, **window)
            results = [result for bucket in tokens["data"] for result in bucket["results"]]
            assert sums[owner]["prompt_tokens"] == sum(result["input_tokens"] for result in results)
            assert sums[owner]["completion_tokens"] == sum(result["output_tokens"] for result in results)
            assert sums[owner]["cached_tokens"] == sum(result["input_cached_tokens"] for result in results)
            _, month = await api.get(f"/admin/organizations/{owner}/usage", month="2026-03")
            assert sum(found["amount"] for found in month["data"]) == sums[owner]["amount"]
            _, invoices = await api.get("/v1/organization/invoices", key)
            assert [invoice["total"] for invoice in invoices["data"]] == [sums[owner]["amount"]]


async def test_a_page_of_many_groups_ends_early_and_loses_nothing(
    database: Database, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(database, redis)
    async with billing_api(database, redis) as api:
        groups = {"bucket_width": "1d", "group_by": "organization"}
        whole = await used(api, **groups)
        monkeypatch.setattr(operator_routes, "MAX_RESULTS", 2)
        window = {"start_time": str(START_S), "end_time": str(END_S)}
        _, first = await api.get("/admin/usage", **window, **groups)
        assert (len(first["data"]), first["has_more"]) == (1, True)
        assert await used(api, **groups) == whole
        monkeypatch.setattr(operator_routes, "MAX_RESULTS", 1)
        status, refused = await api.get("/admin/usage", **window, **groups)
        assert (status, refused["error"]["param"]) == (400, "group_by")


async def test_balances_of_all_in_pages(database: Database, redis: Redis) -> None:
    await filled(database, redis)
    async with billing_api(database, redis) as api:
        await api.post(f"/admin/organizations/{GLOBEX}/credits", {"amount": 7_000_000, "reason": "paid"})
        _, first = await api.get("/admin/balances", limit="1")
        assert (first["has_more"], [found["id"] for found in first["data"]]) == (True, [ACME])
        _, second = await api.get("/admin/balances", limit="1", after=first["last_id"])
        assert (second["has_more"], [found["id"] for found in second["data"]]) == (False, [GLOBEX])
        for [found], key in ((first["data"], TENANT), (second["data"], OTHER_TENANT)):
            assert (await api.get("/v1/organization/balance", key))[1] == found
        assert first["data"][0]["available"] < 0 < second["data"][0]["available"]


async def test_stored_invoices_of_all(database: Database, redis: Redis) -> None:
    await filled(database, redis)
    april_ms = MARCH_MS + 31 * DAY_S * 1000
    await send(redis, settled(claims("req_e", admitted_at_ms=april_ms), usage(1, 1)))
    await taken_in(worker(database, redis))
    async with billing_api(database, redis) as api:
        _, listed = await api.get("/admin/invoices")
        assert [found["id"] for found in listed["data"]] == [
            "inv_acme_2026-04",
            "inv_globex_2026-03",
            "inv_acme_2026-03",
        ]
        assert "lines" not in listed["data"][0]
        _, after = await api.get("/admin/invoices", after="inv_acme_2026-04", limit="1")
        assert ([found["id"] for found in after["data"]], after["has_more"]) == (["inv_globex_2026-03"], True)
        _, one = await api.get("/admin/invoices", month="2026-03", organization="acme")
        assert [found["id"] for found in one["data"]] == ["inv_acme_2026-03"]
        _, stored = await api.get("/admin/invoices/inv_acme_2026-03")
        assert sum(line["amount"] for line in stored["lines"]) == stored["total"]
        assert (await api.get("/admin/invoices/inv_nobody_2026-03"))[0] == 404


async def test_an_organizations_invoices_in_pages_are_the_stored_ones(database: Database, redis: Redis) -> None:
    await filled(database, redis)
    april_ms = MARCH_MS + 31 * DAY_S * 1000
    await send(redis, settled(claims("req_e", admitted_at_ms=april_ms), usage(1, 1)))
    stand = worker(database, redis)
    await taken_in(stand)
    async with billing_api(database, redis) as api:
        await api.post(f"/admin/organizations/{ACME}/credits", {"amount": 5, "reason": "paid"})
        await send(redis, settled(claims("req_f"), usage(1, 1)))
        await stand.consumer.step()  # charged, and not drawn yet
        stored = [(await api.get(f"/admin/invoices/inv_acme_2026-{month}"))[1] for month in ("04", "03")]
        for path, key in ((f"/admin/organizations/{ACME}/invoices", OPERATOR), ("/v1/organization/invoices", TENANT)):
            _, listed = await api.get(path, key)
            assert (listed["data"], listed["has_more"]) == (stored, False)
            _, first = await api.get(path, key, limit="1")
            assert (first["data"], first["has_more"]) == (stored[:1], True)
            _, second = await api.get(path, key, limit="1", after=first["last_id"])
            assert (second["data"], second["has_more"]) == (stored[1:], False)
            _, march = await api.get(path, key, period="2026-03")
            assert march["data"] == stored[1:]
            assert (await api.get(path, key, after="inv_globex_2026-03"))[0] == 400, "another organization's"
            assert (await api.get(path, key, limit="1001"))[0] == 400


async def test_alarms_and_dead_letters_in_pages(database: Database, redis: Redis) -> None:
    for bucket in (3, 4):
        await redis.xadd(usage_stream(bucket), {"event": b"{broken"})
    await worker(database, redis).consumer.step()
    async with billing_api(database, redis) as api:
        for path in ("/admin/alarms", "/admin/dead_letters"):
            _, both = await api.get(path)
            _, first = await api.get(path, limit="1")
            _, second = await api.get(path, limit="1", after=first["last_id"])
            assert (first["has_more"], second["has_more"]) == (True, False)
            assert first["data"] + second["data"] == both["data"]
            assert (await api.get(path, after="nobody"))[0] == 400


@pytest.mark.parametrize(
    ("path", "params", "param"),
    [
        ("usage", {}, "start_time"),
        ("usage", {"start_time": "x"}, "start_time"),
        ("usage", {"start_time": "1", "bucket_width": "1y"}, "bucket_width"),
        ("usage", {"start_time": "1", "group_by": "moon"}, "group_by.0"),
        ("usage", {"start_time": "1", "bucket_width": "1d", "page": "7"}, "page"),
        ("usage", {"start_time": "1", "page": "page_7"}, "page"),
        ("usage", {"start_time": "1", "limit": "0"}, "limit"),
        ("usage", {"start_time": "1", "colour": "red"}, "colour"),
        ("balances", {"limit": "1001"}, "limit"),
        ("invoices", {"month": "2026-13"}, "month"),
        ("invoices", {"after": "inv_x"}, "after"),
        ("alarms", {"limit": "0"}, "limit"),
    ],
)
async def test_a_wrong_question_names_its_parameter(
    database: Database, redis: Redis, path: str, params: dict[str, str], param: str
) -> None:
    async with billing_api(database, redis) as api:
        status, body = await api.get(f"/admin/{path}", OPERATOR, **params)
        assert (status, body["error"]["param"]) == (400, param)
        assert body["error"]["type"] == "invalid_request_error"
        assert (await api.get(f"/admin/{path}", TENANT, start_time="1"))[0] == 403
        assert (await api.get(f"/admin/{path}", "nobody", start_time="1"))[0] == 401


async def test_an_unknown_organization_is_404(database: Database, redis: Redis) -> None:
    async with billing_api(database, redis) as api:
        assert (await api.get("/admin/usage", start_time="1", organization="nobody"))[0] == 404
        assert (await api.get("/admin/invoices", organization="nobody"))[0] == 404


async def test_every_route_says_what_it_answers(database: Database, redis: Redis) -> None:
    async with billing_api(database, redis) as api:
        _, described = await api.get("/openapi.json")
        for path, methods in described["paths"].items():
            for method, operation in methods.items():
                content = operation["responses"]["200"]["content"]
                document = path.rpartition("/")[2] in {"pdf", "html", "proof"}
                assert document or "$ref" in content["application/json"]["schema"], f"{method} {path}"
