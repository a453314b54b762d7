"""Operators publish rate cards ahead of their date; bills and usage know them from then on."""

import asyncio
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from support.billing.api import TENANT, billing_api
from support.billing.stand import ACME, MARCH_MS, MODEL, claims, send, settled, usage, worker
from support.fakes.rate_cards import SHIPPED, SHIPPED_CARDS, published, rate_card, stated
from tokenyard.core.clock import SystemClock
from tokenyard.core.ids import PriceId
from tokenyard.storage.database import Database
from tokenyard_billing.pricing.price_book import TOPIC, PriceBook
from tokenyard_billing.pricing.prices import PriceList
from tokenyard_billing.pricing.publishing import import_rate_cards

CARDS = "/admin/rate_cards"
DAY_MS = 86_400_000


def body(version: str, start_ms: int) -> dict[str, Any]:
    card: dict[str, Any] = msgspec.to_builtins(stated(version, start_ms))
    card["models"][MODEL]["fine_tuned"] |= {"hosting_hour": None, "pinned_hosting_hour": None}
    return card


async def installed(database: Database) -> int:
    """Import the shipped cards; return a start that a new card may have."""
    now_ms = SystemClock().now_ms()
    await import_rate_cards(database, SHIPPED, now_ms)
    return now_ms + DAY_MS


async def test_a_card_is_published_once_and_read_as_it_was_written(database: Database, redis: Redis) -> None:
    start_ms = await installed(database)
    card = body("2031", start_ms)
    async with billing_api(database, redis) as api:
        status, made = await api.post(CARDS, card)
        assert (status, made["object"], made["id"], made["published_by"], made["source"]) == (
            *(200, "rate_card", "2031"),
            *("key_operator", "api"),
        )
        assert {name: made[name] for name in card} == card
        assert made["sha256"] == rate_card("2031", start_ms).sha256
        assert await api.post(CARDS, card) == (200, made)
        assert await api.post(CARDS, card | {"effective_from": card["effective_from"].replace("Z", "+00:00")}) == (
            *(200, made),
        )
        assert await api.get(f"{CARDS}/2031") == (200, made)
        _, shipped = await api.get(f"{CARDS}/2026-01-01")
        assert shipped["models"][MODEL]["fine_tuned"] == card["models"][MODEL]["fine_tuned"]
        assert (await api.get(f"{CARDS}/2032"))[0] == 404


async def test_hours_of_fine_tunes_have_prices_of_their_own(database: Database, redis: Redis) -> None:
    start_ms = await installed(database)
    hours: tuple[tuple[dict[str, str], dict[str, str | None]], ...] = (
        ({"hosting_hour": "0.02"}, {"hosting_hour": "0.02", "pinned_hosting_hour": "0.02"}),
        ({"pinned_hosting_hour": "0.05"}, {"hosting_hour": "0.00", "pinned_hosting_hour": "0.05"}),
        ({"hosting_hour": "0.02", "pinned_hosting_hour": "0"}, {"hosting_hour": "0.02", "pinned_hosting_hour": "0.00"}),
    )
    async with billing_api(database, redis) as api:
        for number, (given, shown) in enumerate(hours):
            card = body(f"203{number}", start_ms + number)
            card["models"][MODEL]["fine_tuned"] |= given
            status, made = await api.post(CARDS, card)
            tuned = made["models"][MODEL]["fine_tuned"]
            assert (status, {name: tuned[name] for name in shown}) == (200, shown)
        for wrong in ("-1", "0.0000000001", "1001", "x"):
            card = body("2040", start_ms + 100)
            card["models"][MODEL]["fine_tuned"] |= {"hosting_hour": wrong}
            assert (await api.post(CARDS, card))[0] == 400


async def test_the_same_card_is_still_the_same_when_it_is_in_force(database: Database, redis: Redis) -> None:
    await installed(database)
    async with billing_api(database, redis) as api:
        _, shipped = await api.get(f"{CARDS}/2026-01-01")
        card = {name: shipped[name] for name in ("version", "effective_from", "currency", "models")}
        assert await api.post(CARDS, card) == (200, shipped)


async def test_cards_are_listed_in_pages_the_last_to_start_first(database: Database, redis: Redis) -> None:
    start_ms = await installed(database)
    async with billing_api(database, redis) as api:
        for number in range(2):
            await api.post(CARDS, body(f"card/{number}", start_ms + number))
        _, first = await api.get(CARDS, limit="2")
        assert ([card["id"] for card in first["data"]], first["has_more"]) == (["card/1", "card/0"], True)
        assert "models" not in first["data"][0]
        _, second = await api.get(CARDS, limit="2", after=first["last_id"])
        assert ([card["id"] for card in second["data"]], second["has_more"]) == (["2026-01-01"], False)
        status, refused = await api.get(CARDS, after="nobody")
        assert (status, refused["error"]["param"]) == (400, "after")
        assert (await api.get(f"{CARDS}/card%2F1"))[1]["version"] == "card/1"


async def test_another_card_of_the_same_version_or_start_is_a_conflict(database: Database, redis: Redis) -> None:
    start_ms = await installed(database)
    async with billing_api(database, redis) as api:
        await api.post(CARDS, body("2031", start_ms))
        dearer = msgspec.to_builtins(stated("2031", start_ms, output="0.81"))
        for other in (dearer, body("2031", start_ms + 1), body("2032", start_ms), body("2026-01-01", start_ms)):
            status, refused = await api.post(CARDS, other)
            assert (status, refused["error"]["code"]) == (409, "conflict")
        _, listed = await api.get(CARDS)
        assert [card["id"] for card in listed["data"]] == ["2031", "2026-01-01"]


async def test_a_card_that_begins_too_soon_is_refused_by_name(database: Database, redis: Redis) -> None:
    start_ms = await installed(database)
    async with billing_api(database, redis) as api:
        for soon_ms in (start_ms - DAY_MS + 14 * 60_000, MARCH_MS):
            status, refused = await api.post(CARDS, body("hasty", soon_ms))
            assert status == 400
            assert "rate card hasty starts" in refused["error"]["message"]
            assert "at least 15 minutes" in refused["error"]["message"]


RATES = {"input": "1", "cached_input": "1", "output": "1"}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"colour": "red"}, "colour"),
        ({"currency": "EUR"}, "only USD"),
        ({"effective_from": "2031-01-01T00:00:00"}, "time zone"),
        ({"effective_from": "soon"}, "effective_from"),
        ({"version": ""}, "version"),
        ({"version": "a\x00b"}, "version"),
        ({"models": {}}, "models"),
        ({"models": {"m": {**RATES, "training": "1", "fine_tuned": RATES, "more": "1"}}}, "more"),
        ({"models": {"m": {**RATES, "training": "1"}}}, "fine_tuned"),
        ({"models": {"m": {**RATES, "fine_tuned": RATES}}}, "fine_tuned"),
        ({"models": {"m": {**RATES, "training": 1, "fine_tuned": RATES}}}, "training"),
        ({"models": {"m": {**RATES, "training": "0.0001", "fine_tuned": RATES}}}, "finer than one nano-dollar"),
        ({"models": {"m": {**RATES, "training": "-1", "fine_tuned": RATES}}}, "negative"),
        ({"models": {"a\tb": {**RATES, "training": "1", "fine_tuned": RATES}}}, "models"),
    ],
)
async def test_a_card_that_is_not_exact_is_refused(
    database: Database, redis: Redis, change: dict[str, Any], complaint: str
) -> None:
    start_ms = await installed(database)
    async with billing_api(database, redis) as api:
        status, refused = await api.post(CARDS, body("2031", start_ms) | change)
        assert (status, refused["error"]["type"]) == (400, "invalid_request_error")
        assert complaint in refused["error"]["message"]
        assert len((await api.get(CARDS))[1]["data"]) == 1


async def test_tenants_have_no_part_in_it(database: Database, redis: Redis) -> None:
    start_ms = await installed(database)
    async with billing_api(database, redis) as api:
        assert (await api.get(CARDS, TENANT))[0] == 403
        assert (await api.get(f"{CARDS}/2026-01-01", TENANT))[0] == 403
        assert (await api.post(CARDS, body("2031", start_ms), TENANT))[0] == 403


async def test_bills_and_costs_know_a_card_that_came_after_their_process_began(
    database: Database, redis: Redis
) -> None:
    start_ms = await installed(database)
    book = PriceBook(database)
    async with book, billing_api(database, redis, book.prices) as api:
        await published(database, rate_card("next", start_ms), now_ms=start_ms - DAY_MS)
        await book.listeners()[TOPIC]("next")
        async with asyncio.timeout(20):
            while len(book.prices.cards) < 2:  # noqa: ASYNC110 - the book tells nobody
                await asyncio.sleep(0.01)
        made = claims("req_a", price=PriceId(f"next/{MODEL}"), admitted_at_ms=start_ms + 60_000)
        await send(redis, settled(made, usage(10, 5)))
        stand = worker(database, redis, prices=PriceList(SHIPPED_CARDS))
        await stand.consumer.step()
        await stand.drafter.step()
        _, invoices = await api.get(f"/admin/organizations/{ACME}/invoices")
        [invoice] = invoices["data"]
        assert [(line["price"], line["rate"]) for line in invoice["lines"]] == [
            (made.price, 100),
            (made.price, 800),
        ]
        window = {"start_time": str(start_ms // 1000 - 86_400), "end_time": str(start_ms // 1000 + 86_400)}
        _, costs = await api.get("/v1/organization/costs", TENANT, group_by="line_item", **window)
        items = [found for bucket in costs["data"] for found in bucket["results"]]
        assert {found["line_item"]: found["quantity"] for found in items} == {
            f"{MODEL}, input": 10,
            f"{MODEL}, output": 5,
        }
