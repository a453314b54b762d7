"""What the operator's command line asks for."""

import time

from redis.asyncio import Redis

from support.billing.api import TENANT, billing_api
from support.billing.stand import (
    ACME,
    MARCH_MS,
    MODEL,
    PRICE,
    claims,
    expired,
    reported,
    send,
    settled,
    usage,
    worker,
)
from support.money.live_budgets import put_budget
from tokenyard.core.budgets import wallet
from tokenyard.core.redis_keys import bucket_of, usage_stream
from tokenyard.limits.budget_figures import BudgetFigures
from tokenyard.storage.database import Database

CREDITS = f"/admin/organizations/{ACME}/credits"


async def test_credit_by_dollars_or_nano_dollars_once(database: Database, redis: Redis) -> None:
    async with billing_api(database, redis) as api:
        body = {"amount_dollars": "2.50", "reason": "paid", "idempotency_key": "a"}
        status, granted = await api.post(CREDITS, body)
        assert (status, granted["amount"], granted["actor"]) == (200, 2_500_000_000, "key_operator")
        assert (await api.post("/admin/organizations/acme/credits", body))[1]["id"] == granted["id"]
        await api.post(CREDITS, {"amount": 7, "reason": "more"})
        assert (await api.post(CREDITS, body | {"amount_dollars": "3"}))[0] == 409
        _, listed = await api.get(CREDITS)
        assert sorted(grant["amount"] for grant in listed["data"]) == [7, 2_500_000_000]
        _, balance = await api.get("/v1/organization/balance", TENANT)
        assert balance["available_dollars"] == "2.500000007"


async def test_a_wrong_credit_is_refused(database: Database, redis: Redis) -> None:
    async with billing_api(database, redis) as api:
        for body in (
            {"reason": "x"},
            {"reason": "x", "amount": 1, "amount_dollars": "1"},
            {"reason": "x", "amount_dollars": "0.0000000001"},
            {"reason": "x", "amount_dollars": "-1"},
            {"reason": "", "amount": 1},
            {"amount": 1},
            {"reason": "\x00", "amount": 1},
            {"reason": "x", "amount": 1, "idempotency_key": "\x00"},
            {"reason": "x", "amount": 1, "idempotency_key": "pay_of_another"},
        ):
            assert (await api.post(CREDITS, body))[0] == 400, body
        assert (await api.post("/admin/organizations/nobody/credits", {"reason": "x", "amount": 1}))[0] == 404
        assert (await api.post(CREDITS, {"reason": "x", "amount": 1}, TENANT))[0] == 403


async def test_an_invoice_is_tokens_times_rate_line_by_line(database: Database, redis: Redis) -> None:
    await send(redis, settled(claims("req_a"), usage(100, 10, 40)), settled(claims("req_b"), usage(1, 1)))
    stand = worker(database, redis)
    await stand.consumer.step()
    async with billing_api(database, redis) as api:
        assert (await api.get("/admin/organizations/acme/invoices"))[1]["data"] == []
        await stand.drafter.step()
        _, listed = await api.get("/admin/organizations/acme/invoices", month="2026-03")
        [invoice] = listed["data"]
        lines = [(line["kind"], line["quantity"], line["rate"], line["amount"]) for line in invoice["lines"]]
        assert lines == [("input", 61, 100, 6100), ("cached_input", 40, 50, 2000), ("output", 11, 400, 4400)]
        assert {(line["model"], line["price"]) for line in invoice["lines"]} == {(MODEL, PRICE)}
        assert invoice["total"] == 12_500
        assert invoice["credit_applied"] + invoice["amount_due"] == invoice["total"]
        assert (invoice["period"], invoice["state"], invoice["total_dollars"]) == ("2026-03", "draft", "0.0000125")
        assert time.time() - 60 < invoice["drafted_at_ms"] / 1000 <= time.time()
        assert (await api.get("/v1/organization/invoices", TENANT))[1]["data"][0]["id"] == invoice["id"]
        assert (await api.get("/admin/organizations/acme/invoices", period="2026-13"))[0] == 400
        assert (await api.get("/admin/organizations/acme/invoices", period="2025-01"))[1]["data"] == []
        _, used = await api.get("/admin/organizations/acme/usage", month="2026-03")
        assert [(row["model"], row["requests"], row["amount"]) for row in used["data"]] == [(MODEL, 2, 12_500)]


async def test_the_story_of_a_request(database: Database, redis: Redis) -> None:
    await send(
        redis,
        reported(claims("req_a", 1), usage(10, 1), finished=False),
        reported(claims("req_a", 2), usage(10, 6)),
        settled(claims("req_a", 2), usage(10, 5)),
        expired(claims("req_w")),
    )
    await worker(database, redis).consumer.step()
    async with billing_api(database, redis) as api:
        status, story = await api.get("/admin/requests/req_a")
        assert status == 200
        first, second = story["attempts"]
        assert (first["charged"], second["charged"]) == (False, True)
        assert first["waste"]["completion_tokens"] == 1
        assert second["gateway"]["completion_tokens"] == 5
        assert second["replica"]["completion_tokens"] == 6
        assert story["charge"]["amount"] == 10 * 100 + 5 * 400
        [transaction] = story["journal"]
        assert sum(entry["amount"] for entry in transaction["entries"]) == 0
        assert story["invoice"] == "inv_acme_2026-03"
        assert [alarm["kind"] for alarm in story["alarms"]] == ["witnesses_differ"]
        _, waiting = await api.get("/admin/requests/req_w")
        assert (waiting["state"], waiting["charge"]) == ("waiting", None)
        assert (await api.get("/admin/requests/req_unknown"))[0] == 404
        assert [alarm["kind"] for alarm in (await api.get("/admin/alarms"))[1]["data"]] == ["witnesses_differ"]


async def test_a_dead_letter_can_be_sent_again(database: Database, redis: Redis) -> None:
    stream = usage_stream(bucket_of(ACME))
    await redis.xadd(stream, {"event": b"{broken"})
    stand = worker(database, redis)
    await stand.consumer.step()
    async with billing_api(database, redis) as api:
        [dead] = (await api.get("/admin/dead_letters"))[1]["data"]
        assert dead["event"] == "{broken"
        named = {"stream": dead["stream"], "entry": dead["entry"]}
        assert (await api.post("/admin/dead_letters/send_again", named))[0] == 200
        assert (await api.post("/admin/dead_letters/send_again", named))[0] == 404
        assert await redis.xlen(stream) == 1
        await stand.consumer.step()
        assert len((await api.get("/admin/dead_letters"))[1]["data"]) == 1


async def test_books_that_agree_are_ok(database: Database, redis: Redis) -> None:
    await send(redis, settled(claims("req_a", admitted_at_ms=MARCH_MS), usage(10, 5)))
    await worker(database, redis).consumer.step()
    async with billing_api(database, redis) as api:
        for answer in (await api.get("/admin/reconcile"), await api.post("/admin/reconcile")):
            assert answer[1]["ok"] is True
            assert [found["name"] for found in answer[1]["differences"]] == ["replica_silent"]
            assert answer[1]["tokens"]["unexplained"] == 0


async def test_what_is_broken_is_shown_by_name_and_place(database: Database, redis: Redis) -> None:
    await put_budget(redis, bucket_of(ACME), wallet(ACME), BudgetFigures(5, 0))
    async with billing_api(database, redis) as api:
        for status, found in (await api.get("/admin/reconcile"), await api.post("/admin/reconcile")):
            assert (status, found["ok"]) == (200, False)
            assert found["differences"] == [
                {
                    "name": "live_budget_differs",
                    "subject": wallet(ACME),
                    "detail": "version 0: SQL 0, Redis 5",
                    "broken": True,
                }
            ]
        assert (await api.get("/admin/reconcile", TENANT))[0] == 403
