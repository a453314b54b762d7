"""A process has its prices from SQL, hears of new ones, and serves on while SQL is away."""

import asyncio
from collections.abc import Callable

import pytest
from redis.asyncio import Redis
from sqlalchemy import update

from support.billing.stand import MODEL, budget_outbox
from support.fakes.rate_cards import SHIPPED, published, rate_card
from tokenyard.core.clock import SystemClock
from tokenyard.core.errors import Unavailable
from tokenyard.core.money import PRICE_LEAD_MS
from tokenyard.storage.change_feed import ChangeFeed
from tokenyard.storage.database import Database
from tokenyard_billing.pricing import price_book
from tokenyard_billing.pricing.operator_store import RateCardOperatorStore
from tokenyard_billing.pricing.price_book import PriceBook
from tokenyard_billing.pricing.prices import PriceList
from tokenyard_billing.pricing.publishing import import_rate_cards
from tokenyard_billing.pricing.rate_cards import InvalidRateCard
from tokenyard_billing.tables import RateCardRow

DAY_MS = 86_400_000


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - the book tells nobody
            await asyncio.sleep(0.01)


def versions(prices: PriceList) -> list[str]:
    return [card.version for card in prices.cards]


def start_ms() -> int:
    return SystemClock().now_ms() + PRICE_LEAD_MS + DAY_MS


async def test_a_published_card_is_pushed_to_every_process(database: Database, redis: Redis) -> None:
    await import_rate_cards(database, SHIPPED, SystemClock().now_ms())
    first, second = PriceBook(database), PriceBook(database)
    listening = [ChangeFeed(redis, book.listeners()) for book in (first, second)]
    async with first, second, listening[0], listening[1]:
        assert versions(first.prices) == versions(second.prices) == ["2026-01-01"]
        held = first.prices
        store = RateCardOperatorStore(database, budget_outbox(database, redis), SystemClock())
        await store.publish(rate_card("new", start_ms()), actor="key_1")
        await eventually(lambda: versions(first.prices) == versions(second.prices) == ["2026-01-01", "new"])
        assert held.by_id(f"new/{MODEL}") == first.prices.by_id(f"new/{MODEL}")


async def test_a_card_whose_push_is_lost_is_found(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(price_book, "RELOAD_S", 0.02)
    async with PriceBook(database) as book:
        await published(database, rate_card("new", 1), now_ms=0)
        await eventually(lambda: versions(book.prices) == ["new"])


async def test_prices_serve_on_while_sql_is_away(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(price_book, "RELOAD_S", 0.02)
    await published(database, rate_card("one", 1), now_ms=0)
    async with PriceBook(database) as book:
        async with database.engine.begin() as connection:
            await connection.exec_driver_sql("ALTER TABLE billing_rate_cards RENAME TO away")
        caplog.clear()
        await eventually(lambda: "those in memory serve on" in caplog.text)
        assert book.prices.price(MODEL, fine_tuned=False, at_ms=1) is not None
        async with database.engine.begin() as connection:
            await connection.exec_driver_sql("ALTER TABLE away RENAME TO billing_rate_cards")
        await published(database, rate_card("two", DAY_MS), now_ms=0)
        await eventually(lambda: versions(book.prices) == ["one", "two"])


async def test_a_process_that_starts_while_sql_is_away_has_prices_when_it_is_back(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(price_book, "RETRY_S", 0.02)
    async with database.engine.begin() as connection:
        await connection.exec_driver_sql("ALTER TABLE billing_rate_cards RENAME TO away")
    async with PriceBook(database) as book:
        with pytest.raises(Unavailable):
            book.prices.price(MODEL, fine_tuned=False, at_ms=1)
        async with database.engine.begin() as connection:
            await connection.exec_driver_sql("ALTER TABLE away RENAME TO billing_rate_cards")
        await published(database, rate_card("one", 1), now_ms=0)
        await eventually(lambda: versions(book.prices) == ["one"])
        assert book.prices.price(MODEL, fine_tuned=False, at_ms=1) is not None


async def test_a_card_that_was_changed_in_the_database_is_not_believed(database: Database) -> None:
    await published(database, rate_card("one", 1), now_ms=0)
    dearer = rate_card("one", 1, output="9").canonical.decode()
    async with database.transaction() as session:
        await session.execute(update(RateCardRow).values(card=dearer))
    with pytest.raises(InvalidRateCard, match="one was changed in the database"):
        async with PriceBook(database):
            pass
