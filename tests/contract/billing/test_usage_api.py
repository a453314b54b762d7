"""OpenAI's own client reads usage and costs."""

from typing import Any

import pytest
from openai import AsyncOpenAI, omit
from openai.types.admin.organization.usage_completions_response import Data as UsageBucket
from openai.types.admin.organization.usage_completions_response import (
    DataResultOrganizationUsageCompletionsResult as CompletionsResult,
)
from openai.types.admin.organization.usage_costs_response import Data as CostsBucket
from openai.types.admin.organization.usage_costs_response import DataResultOrganizationCostsResult as CostsResult
from redis.asyncio import Redis

from support.billing.api import OPERATOR, OTHER_TENANT, TENANT, billing_api
from support.billing.stand import ACME, GLOBEX, MARCH_MS, MODEL, claims, send, settled, trained, usage, worker
from tokenyard.core.ids import ApiKeyId, ProjectId
from tokenyard.core.money import NanoDollars, to_dollars
from tokenyard.storage.database import Database

DAY_S = 86_400
START_S = MARCH_MS // 1000 // DAY_S * DAY_S
TUNED = "ft:smollm2-135m-instruct:acme:bot:0123"


def completions(bucket: UsageBucket) -> list[CompletionsResult]:
    """Return a bucket's results, all of which must be of completions."""
    found = [result for result in bucket.results if isinstance(result, CompletionsResult)]
    assert len(found) == len(bucket.results)
    return found


def costs(bucket: CostsBucket) -> list[CostsResult]:
    """Return a bucket's results, all of which must be costs."""
    found = [result for result in bucket.results if isinstance(result, CostsResult)]
    assert len(found) == len(bucket.results)
    return found


async def filled(database: Database, redis: Redis) -> None:
    next_day_ms = MARCH_MS + DAY_S * 1000
    await send(
        redis,
        settled(claims("req_a"), usage(100, 10, 40)),
        settled(claims("req_b", model=TUNED, project=ProjectId("proj_2")), usage(50, 5)),
        settled(claims("req_c", admitted_at_ms=next_day_ms, key=ApiKeyId("key_2")), usage(7, 3)),
        settled(claims("req_d", organization=GLOBEX), usage(999, 999)),
        trained("ftjob-1", 1_000),
    )
    stand = worker(database, redis)
    await stand.consumer.step()
    await stand.drafter.step()


async def test_completions_by_day_and_by_group(database: Database, redis: Redis) -> None:
    await filled(database, redis)
    async with billing_api(database, redis) as api:
        client = AsyncOpenAI(api_key=TENANT, admin_api_key=TENANT, base_url=f"{api.url}/v1", max_retries=0)
        usages = client.admin.organization.usage
        page = await usages.completions(start_time=START_S, end_time=START_S + 2 * DAY_S)
        days = [completions(bucket)[0] for bucket in page.data]
        assert [(d.input_tokens, d.output_tokens, d.num_model_requests) for d in days] == [(150, 15, 2), (7, 3, 1)]
        assert (days[0].input_cached_tokens, days[0].model, days[0].project_id) == (40, None, None)
        assert (page.has_more, page.data[0].start_time, page.data[0].end_time) == (False, START_S, START_S + DAY_S)

        grouped = await usages.completions(
            start_time=START_S, end_time=START_S + 1, group_by=["model", "project_id"], bucket_width="1d"
        )
        found = {(r.model, r.project_id): r.input_tokens for r in completions(grouped.data[0])}
        assert found == {(MODEL, "proj_1"): 100, (TUNED, "proj_2"): 50}

        filters: list[dict[str, Any]] = [{"models": [TUNED]}, {"project_ids": ["proj_2", "proj_x"]}]
        for one in filters:
            only = await usages.completions(start_time=START_S, end_time=START_S + DAY_S, **one)
            assert completions(only.data[0])[0].input_tokens == 50
        by_key = await usages.completions(start_time=START_S, end_time=START_S + 2 * DAY_S, api_key_ids=["key_2"])
        assert [len(bucket.results) for bucket in by_key.data] == [0, 1]
        await client.close()


async def test_pages_follow_each_other(database: Database, redis: Redis) -> None:
    await filled(database, redis)
    async with billing_api(database, redis) as api:
        client = AsyncOpenAI(api_key=TENANT, admin_api_key=TENANT, base_url=f"{api.url}/v1", max_retries=0)
        usages = client.admin.organization.usage
        starts: list[int] = []
        tokens, page = 0, None
        while True:
            got = await usages.completions(
                start_time=START_S, end_time=START_S + 2 * DAY_S, bucket_width="1h", limit=20, page=page or omit
            )
            starts += [bucket.start_time for bucket in got.data]
            tokens += sum(result.input_tokens for bucket in got.data for result in completions(bucket))
            page = got.next_page
            if not got.has_more:
                break
        assert starts == [START_S + hour * 3600 for hour in range(48)]
        assert tokens == 157
        await client.close()


async def test_costs_are_exact_by_line(database: Database, redis: Redis) -> None:
    await filled(database, redis)
    async with billing_api(database, redis) as api:
        client = AsyncOpenAI(api_key=TENANT, admin_api_key=TENANT, base_url=f"{api.url}/v1", max_retries=0)
        usages = client.admin.organization.usage
        page = await usages.costs(start_time=START_S, end_time=START_S + DAY_S)
        [day] = costs(page.data[0])
        # 60 fresh + 40 cached + 10 out, 50 + 5 at the base's price (the claims say so), 1000 trained
        assert day.amount is not None
        assert day.amount.value == (60 * 100 + 40 * 50 + 10 * 400 + 50 * 100 + 5 * 400 + 1000 * 3000) / 1e9
        assert day.amount.currency == "usd"

        lines = await usages.costs(start_time=START_S, end_time=START_S + DAY_S, group_by=["line_item"])
        found = {(r.line_item, r.quantity) for r in costs(lines.data[0])}
        assert found == {
            (f"{MODEL}, input", 60),
            (f"{MODEL}, cached_input", 40),
            (f"{MODEL}, output", 10),
            (f"{TUNED}, input", 50),
            (f"{TUNED}, output", 5),
            (f"{MODEL}, training", 1000),
        }
        await client.close()


@pytest.mark.parametrize(
    ("path", "params", "param"),
    [
        ("usage/completions", {}, "start_time"),
        ("usage/completions", {"start_time": "x"}, "start_time"),
        ("usage/completions", {"start_time": "1", "bucket_width": "1y"}, "bucket_width"),
        ("usage/completions", {"start_time": "1", "limit": "32"}, "limit"),
        ("usage/completions", {"start_time": "1", "group_by": "moon"}, "group_by"),
        ("usage/completions", {"start_time": "1", "page": "7"}, "page"),
        ("costs", {"start_time": "1", "limit": "181"}, "limit"),
    ],
)
async def test_a_wrong_question_names_its_parameter(
    database: Database, redis: Redis, path: str, params: dict[str, str], param: str
) -> None:
    async with billing_api(database, redis) as api:
        status, body = await api.get(f"/v1/organization/{path}", TENANT, **params)
        assert status in {400, 422}
        assert body["error"]["param"] == param
        assert (await api.get(f"/v1/organization/{path}", OPERATOR, start_time="1"))[0] == 403
        assert (await api.get(f"/v1/organization/{path}", "nobody", start_time="1"))[0] == 401


async def test_nobody_sees_anothers_usage_or_invoices(database: Database, redis: Redis) -> None:
    await filled(database, redis)
    async with billing_api(database, redis) as api:
        _, own = await api.get("/v1/organization/invoices", OTHER_TENANT)
        assert {invoice["organization"] for invoice in own["data"]} == {GLOBEX}
        _, page = await api.get("/v1/organization/usage/completions", OTHER_TENANT, start_time=str(START_S), limit="1")
        assert page["data"][0]["results"][0]["input_tokens"] == 999
        assert (await api.get(f"/admin/organizations/{ACME}/invoices", OTHER_TENANT))[0] == 403


async def test_a_tenant_splits_its_bill_by_its_own_users(database: Database, redis: Redis) -> None:
    ann, bob = "ann@example.com", "b-17"
    await send(
        redis,
        settled(claims("req_a", end_user=ann), usage(100, 10)),
        settled(claims("req_b", end_user=ann, model=TUNED), usage(50, 5)),
        settled(claims("req_c", end_user=bob), usage(7, 3)),
        settled(claims("req_d"), usage(1, 1)),
        settled(claims("req_e", end_user=ann, organization=GLOBEX), usage(999, 999)),
        trained("ftjob-1", 1_000),
    )
    stand = worker(database, redis)
    await stand.consumer.step()
    async with billing_api(database, redis) as api:
        client = AsyncOpenAI(api_key=TENANT, admin_api_key=TENANT, base_url=f"{api.url}/v1", max_retries=0)
        usages = client.admin.organization.usage
        span: dict[str, Any] = {"start_time": START_S, "end_time": START_S + DAY_S}
        page = await usages.completions(**span, group_by=["user_id"])
        found = {(r.user_id, r.input_tokens, r.output_tokens) for r in completions(page.data[0])}
        assert found == {(ann, 150, 15), (bob, 7, 3), (None, 1, 1)}
        only = await usages.completions(**span, user_ids=[ann], group_by=["model"])
        assert {(r.model, r.input_tokens) for r in completions(only.data[0])} == {(MODEL, 100), (TUNED, 50)}
        [whole] = completions((await usages.completions(**span)).data[0])
        assert (whole.user_id, whole.input_tokens) == (None, 158)
        await client.close()
        _, costs_of = await api.get(
            "/v1/organization/costs", TENANT, start_time=str(START_S), end_time=str(START_S + DAY_S), group_by="user_id"
        )
    amounts = {one["user_id"]: one["amount"]["exact"] for one in costs_of["data"][0]["results"]}
    assert amounts == {
        ann: to_dollars(NanoDollars(150 * 100 + 15 * 400)),
        bob: to_dollars(NanoDollars(7 * 100 + 3 * 400)),
        None: to_dollars(NanoDollars(100 + 400 + 1000 * 3000)),
    }
