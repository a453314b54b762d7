"""Cards come into SQL whole, ahead of their date, once, and never change there."""

import asyncio
import hashlib
from contextlib import nullcontext
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError

from support.billing.stand import rows
from support.fakes.rate_cards import SHIPPED, published, rate_card, stated, write_file
from tokenyard.core.money import PRICE_LEAD_MS
from tokenyard.storage import bulk
from tokenyard.storage.database import Database
from tokenyard.storage.tables import OutboxRow
from tokenyard_billing.pricing.publishing import import_rate_cards
from tokenyard_billing.pricing.rate_cards import InvalidRateCard, RateCardConflict, read_stored_card
from tokenyard_billing.tables import RateCardRow, UsedCardChecksum

NOW_MS = 1_790_000_000_000
DAY_MS = 86_400_000


async def versions(database: Database) -> list[str]:
    return sorted(row.version for row in await rows(database, RateCardRow))


async def used_before(database: Database, version: str, sha256: str) -> None:
    """Leave what an installation has that used a card when only checksums were kept."""
    async with database.transaction() as session:
        row = {"version": version, "sha256": sha256, "first_used_at_ms": NOW_MS - DAY_MS}
        await bulk.insert(session, UsedCardChecksum, [row])


async def test_a_new_installation_takes_every_file_whole(database: Database, tmp_path: Path) -> None:
    write_file(tmp_path, stated("past", NOW_MS - DAY_MS))
    write_file(tmp_path, stated("now", NOW_MS + 1, output="9"))
    await import_rate_cards(database, tmp_path, NOW_MS)
    by_version = {row.version: row for row in await rows(database, RateCardRow)}
    assert set(by_version) == {"past", "now"}
    row = by_version["past"]
    assert read_stored_card(row.card, row.sha256) == rate_card("past", NOW_MS - DAY_MS)
    assert row.sha256 == hashlib.sha256(row.card.encode()).hexdigest()
    assert (row.published_at_ms, row.published_by, row.source) == (NOW_MS, "import", "past.yaml")
    assert sorted(message.payload for message in await rows(database, OutboxRow)) == ['"now"', '"past"']


async def test_files_are_not_needed_once_they_are_imported(database: Database, tmp_path: Path) -> None:
    await import_rate_cards(database, SHIPPED, NOW_MS)
    (tmp_path / "empty").mkdir()
    for _ in range(2):
        await import_rate_cards(database, tmp_path / "empty", NOW_MS)
        await import_rate_cards(database, tmp_path / "missing", NOW_MS)
        await import_rate_cards(database, SHIPPED, NOW_MS + 1)
    [row] = await rows(database, RateCardRow)
    assert row.published_at_ms == NOW_MS
    assert len(await rows(database, OutboxRow)) == 1


async def test_an_installation_without_any_card_is_refused(database: Database, tmp_path: Path) -> None:
    with pytest.raises(InvalidRateCard, match="no rate card in"):
        await import_rate_cards(database, tmp_path, NOW_MS)


async def test_a_card_may_not_begin_before_every_process_can_have_it(database: Database, tmp_path: Path) -> None:
    await import_rate_cards(database, SHIPPED, NOW_MS)
    file = write_file(tmp_path, stated("soon", NOW_MS + PRICE_LEAD_MS - 1))
    with pytest.raises(InvalidRateCard, match=r"soon starts 2026-.*at least 15 minutes from now"):
        await import_rate_cards(database, tmp_path, NOW_MS)
    file.unlink()
    write_file(tmp_path, stated("later", NOW_MS + PRICE_LEAD_MS))
    await import_rate_cards(database, tmp_path, NOW_MS)
    assert await versions(database) == ["2026-01-01", "later"]


@pytest.mark.parametrize(("model", "refused"), [("m@2", True), ("m@0.5", True), ("m@v2", False), ("m@2/x", False)])
async def test_no_model_is_called_like_a_multiplied_price(
    database: Database, tmp_path: Path, model: str, refused: bool
) -> None:
    write_file(tmp_path, stated("card", NOW_MS - DAY_MS, model=model))
    with pytest.raises(InvalidRateCard, match="like a multiplied price") if refused else nullcontext():
        await import_rate_cards(database, tmp_path, NOW_MS)
    assert await versions(database) == ([] if refused else ["card"])


async def test_while_no_card_is_in_force_cards_may_start_at_any_time(database: Database, tmp_path: Path) -> None:
    file = write_file(tmp_path, stated("future", NOW_MS + DAY_MS))
    await import_rate_cards(database, tmp_path, NOW_MS)
    file.unlink()
    write_file(tmp_path, stated("past", NOW_MS - DAY_MS))
    await import_rate_cards(database, tmp_path, NOW_MS)
    assert await versions(database) == ["future", "past"]


async def test_a_published_card_never_changes(database: Database, tmp_path: Path) -> None:
    start_ms = NOW_MS - DAY_MS
    write_file(tmp_path, stated("card", start_ms))
    await import_rate_cards(database, tmp_path, NOW_MS)
    write_file(tmp_path, stated("card", start_ms, output="0.81"))
    with pytest.raises(RateCardConflict, match="card was published with other rates"):
        await import_rate_cards(database, tmp_path, NOW_MS)
    write_file(tmp_path, stated("card", start_ms + 1))
    with pytest.raises(RateCardConflict, match="another start"):
        await import_rate_cards(database, tmp_path, NOW_MS)
    (tmp_path / "card.yaml").unlink()
    write_file(tmp_path, stated("twin", start_ms))
    with pytest.raises(RateCardConflict, match="card and twin start at the same moment"):
        await import_rate_cards(database, tmp_path, NOW_MS)
    [row] = await rows(database, RateCardRow)
    assert read_stored_card(row.card, row.sha256) == rate_card("card", start_ms)


async def test_nothing_is_imported_where_one_file_is_wrong(database: Database, tmp_path: Path) -> None:
    write_file(tmp_path, stated("good", NOW_MS - DAY_MS))
    (tmp_path / "bad.yaml").write_text("version: bad")
    with pytest.raises(InvalidRateCard, match=r"bad\.yaml"):
        await import_rate_cards(database, tmp_path, NOW_MS)
    assert await versions(database) == []


async def test_importers_do_not_get_in_each_others_way(database: Database, tmp_path: Path) -> None:
    for number in range(5):
        write_file(tmp_path, stated(f"card {number}", NOW_MS - number * DAY_MS))
    await asyncio.gather(*(import_rate_cards(database, tmp_path, NOW_MS + number) for number in range(4)))
    assert len(await versions(database)) == 5


async def test_two_cards_of_one_start_cannot_stand_in_sql(database: Database) -> None:
    row = {"card": "{}", "sha256": "", "published_at_ms": 1, "published_by": "", "source": ""}
    with pytest.raises(IntegrityError):
        async with database.transaction() as session:
            await bulk.insert(
                session, RateCardRow, [row | {"version": version, "effective_from_ms": 1} for version in ("a", "b")]
            )


async def test_a_card_used_before_is_filled_where_its_file_agrees(database: Database, tmp_path: Path) -> None:
    await used_before(database, "used", rate_card("used", NOW_MS - DAY_MS).sha256)
    write_file(tmp_path, stated("used", NOW_MS - DAY_MS))
    await import_rate_cards(database, tmp_path, NOW_MS)
    (tmp_path / "used.yaml").unlink()
    await import_rate_cards(database, tmp_path, NOW_MS)
    assert await versions(database) == ["used"]


async def test_a_card_used_before_whose_file_is_missing_or_differs_stops_the_import(
    database: Database, tmp_path: Path
) -> None:
    await used_before(database, "used", rate_card("used", NOW_MS - DAY_MS).sha256)
    write_file(tmp_path, stated("other", NOW_MS - 2 * DAY_MS))
    with pytest.raises(InvalidRateCard, match=r"rate card used was used .*put its file back"):
        await import_rate_cards(database, tmp_path, NOW_MS)
    write_file(tmp_path, stated("used", NOW_MS - DAY_MS, output="0.81"))
    with pytest.raises(InvalidRateCard, match="rate card used was edited after it was used"):
        await import_rate_cards(database, tmp_path, NOW_MS)
    assert await versions(database) == []


@pytest.mark.parametrize(("first", "second"), [("2027", "2027/x"), ("2027/x", "2027")])
async def test_no_two_cards_may_give_one_price_id(database: Database, first: str, second: str) -> None:
    """`2027` with the model `x/m`, and `2027/x` with `m`: the later one would take the earlier one's price away."""
    early = rate_card(first, NOW_MS - DAY_MS)
    await published(database, early, now_ms=NOW_MS)
    late = rate_card(second, NOW_MS + DAY_MS)
    with pytest.raises(RateCardConflict, match="price"):
        await published(database, late, now_ms=NOW_MS)
    assert await versions(database) == [first]
