"""A rate card that was used cannot be edited."""

from pathlib import Path

import pytest
from redis.asyncio import Redis

from support.billing_stand import MODEL, charges, claims, rows, send, settled, usage, worker
from tokenyard.storage.database import Database
from tokenyard_billing.pricing.prices import PriceList
from tokenyard_billing.pricing.rate_cards import InvalidRateCard
from tokenyard_billing.tables import DeadLetter, RateCardChecksum

SHIPPED = Path(__file__).parents[3] / "billing" / "prices" / "2026-01-01.yaml"


async def test_an_edited_card_is_refused_after_its_first_use(database: Database, redis: Redis, tmp_path: Path) -> None:
    card = tmp_path / "card.yaml"
    card.write_text(SHIPPED.read_text().replace("0.10", "0.11"))
    edited = worker(database, redis, prices=PriceList.load(tmp_path))
    await edited.start()  # not used yet: may still change
    await worker(database, redis).start()
    await send(redis, settled(claims("req_a"), usage(10, 5)))
    await worker(database, redis, name="a").consumer.step()
    [used] = await rows(database, RateCardChecksum)
    assert used.version == "2026-01-01"
    with pytest.raises(InvalidRateCard, match="edited after it was used"):
        await edited.start()
    card.write_text(SHIPPED.read_text() + "\n# a comment\n")
    await worker(database, redis, prices=PriceList.load(tmp_path)).start()


async def test_a_worker_with_an_edited_card_charges_nothing_by_it(
    database: Database, redis: Redis, tmp_path: Path
) -> None:
    first = worker(database, redis, name="a")
    await send(redis, settled(claims("req_a"), usage(10, 5)))
    await first.consumer.step()
    await first.stop()
    (tmp_path / "card.yaml").write_text(SHIPPED.read_text().replace("0.10", "0.11"))
    prices = PriceList.load(tmp_path)
    await send(redis, settled(claims("req_b"), usage(10, 5)))
    second = worker(database, redis, name="b", prices=prices)
    for _ in range(6):
        with pytest.raises(InvalidRateCard):
            await second.consumer.step()
    assert list(await charges(database)) == ["req_a"]
    assert await rows(database, DeadLetter) == []
    assert prices.price(MODEL, fine_tuned=False, at_ms=prices.cards[0].effective_from_ms) is not None
