"""Days are sealed when they are over: in order, without gaps, once, whatever dies between two steps."""

import pytest
from redis.asyncio import Redis
from sqlalchemy import event

from support.billing.seal_books import SealBooks
from support.billing.stand import ACME, GLOBEX, MARCH_MS, hosted, kept, rows, worker
from tokenyard.storage.database import Database
from tokenyard_billing.periods import DAY_MS, HOUR_MS
from tokenyard_billing.sealing.tables import Seal, SealedPart

DAY = "2026-03-03"
MIDNIGHT_MS = MARCH_MS // DAY_MS * DAY_MS + DAY_MS


@pytest.fixture
async def books(database: Database, redis: Redis) -> SealBooks:
    """Two organizations used something on the first day."""
    books = SealBooks(database, redis)
    await books.grant(300)
    for organization in (ACME, GLOBEX):
        await books.use(1_000, organization)
    return books


async def parts(books: SealBooks) -> dict[tuple[str, str], tuple[int, int, str]]:
    found = await rows(books.database, SealedPart)
    return {(one.day, one.organization): (one.charges, one.transactions, one.digest) for one in found}


async def test_nothing_is_sealed_where_nothing_was_recorded(database: Database, redis: Redis) -> None:
    assert await SealBooks(database, redis).seal() == []


async def test_a_day_is_sealed_an_hour_after_its_end(books: SealBooks) -> None:
    books.at(MIDNIGHT_MS + HOUR_MS - 1)
    assert await books.seal() == []
    books.at(MIDNIGHT_MS + HOUR_MS)
    [seal] = await books.seal()
    assert (seal.day, seal.previous, seal.organizations) == (DAY, "", 2)
    counts = {key: found[:2] for key, found in (await parts(books)).items()}
    assert counts == {(DAY, ACME): (1, 2), (DAY, GLOBEX): (1, 1)}
    assert await books.verified() is None
    assert await books.seal_differences() == set()


async def test_days_without_rows_are_sealed_too_and_each_names_the_one_before(books: SealBooks) -> None:
    await books.pass_days(2)
    await books.use(500)
    await books.pass_days(2)
    found = await books.seal()
    assert [seal.day for seal in found] == [DAY, "2026-03-04", "2026-03-05", "2026-03-06"]
    assert [seal.organizations for seal in found] == [2, 0, 1, 0]
    assert [seal.previous for seal in found] == ["", *(seal.hash for seal in found[:-1])]
    assert len({seal.hash for seal in found}) == 4
    assert await books.verified() is None


async def test_a_sealed_day_stays_as_it_is(books: SealBooks) -> None:
    await books.pass_days(2)
    before = [seal.hash for seal in await books.seal()], await parts(books)
    await books.use(500)
    assert ([seal.hash for seal in await books.seal()], await parts(books)) == before


async def test_all_that_is_charged_is_sealed(books: SealBooks) -> None:
    await books.take(hosted("adapter_1"), kept(1))
    await books.correct(period="2026-03")
    await books.pass_days(2)
    await books.seal()
    charges, transactions, _ = (await parts(books))[DAY, ACME]
    assert charges > 3
    assert transactions > 2
    assert await books.verified() is None


async def test_late_usage_is_sealed_on_the_day_of_its_recording(books: SealBooks) -> None:
    await books.pass_days(3)
    await books.use(400, at_ms=MARCH_MS)
    await books.pass_days(2)
    await books.seal()
    assert (("2026-03-06", ACME) in await parts(books)) is True
    assert await books.verified() is None


async def test_a_second_worker_seals_nothing_that_the_first_one_leases(books: SealBooks) -> None:
    await books.pass_days(2)
    await books.worker.consumer.step()
    other = worker(books.database, books.redis, name="worker-2", clock=books.clock)
    await other.sealer.step()
    assert await books.seals() == []
    await books.seal()
    hashes = [seal.hash for seal in await books.seals()]
    await books.lose_lease()
    await books.pass_days()
    assert [seal.hash for seal in await books.seal(other)][: len(hashes)] == hashes
    assert await books.verified() is None


async def test_who_lost_its_lease_amid_a_day_writes_nothing_more(books: SealBooks) -> None:
    await books.pass_days(2)
    await books.worker.consumer.step()
    await books.lose_lease()
    await books.worker.sealer.step()
    assert await rows(books.database, SealedPart) == []
    assert await books.seals() == []


class Killed(BaseException):
    """The worker is gone."""


@pytest.mark.parametrize("statement", [1, 2, 3, 4])
async def test_what_dies_between_two_steps_goes_on(books: SealBooks, statement: int) -> None:
    """It dies as the so many-th row or batch of rows is written: of two days, each with parts and a seal."""
    await books.pass_days()
    await books.use(700)
    await books.pass_days(1)
    books.at(MIDNIGHT_MS + DAY_MS + HOUR_MS)
    await books.worker.consumer.step()
    written = 0

    def die(_connection: object, _cursor: object, sql: str, *_more: object) -> None:
        nonlocal written
        written += "INSERT INTO billing_seal" in sql
        if written == statement:
            raise Killed

    engine = books.database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", die)
    with pytest.raises(Killed):
        await books.worker.sealer.step()
    event.remove(engine, "before_cursor_execute", die)
    await books.lose_lease()
    heir = worker(books.database, books.redis, name="worker-2", clock=books.clock)
    sealed = await books.seal(heir)
    assert [seal.day for seal in sealed] == [DAY, "2026-03-04"]
    assert set(await parts(books)) == {(DAY, ACME), (DAY, GLOBEX), ("2026-03-04", ACME)}
    assert await books.verified() is None


SEALED_ACME = f"{DAY}/{ACME}"
INSERTED = (
    "INSERT INTO billing_transactions (id, organization, template, reference, reason, actor, posted_at_ms) "
    "SELECT 'tx_new', organization, template, reference, reason, actor, posted_at_ms FROM billing_transactions "
    f"WHERE organization = '{ACME}' AND template = 'grant'"
)


@pytest.mark.parametrize(
    ("tampering", "name", "subject"),
    [
        (f"UPDATE billing_charges SET amount = 900 WHERE organization = '{ACME}'", "seal_not_rows", SEALED_ACME),
        (f"UPDATE billing_charges SET end_user = 'x' WHERE organization = '{ACME}'", "seal_not_rows", SEALED_ACME),
        (f"DELETE FROM billing_charges WHERE organization = '{ACME}'", "seal_not_rows", SEALED_ACME),
        (
            f"UPDATE billing_charges SET charged_at_ms = charged_at_ms + {DAY_MS} WHERE organization = '{ACME}'",
            "seal_not_rows",
            SEALED_ACME,
        ),
        (f"UPDATE billing_entries SET amount = 2 * amount WHERE organization = '{ACME}'", "seal_not_rows", SEALED_ACME),
        (f"DELETE FROM billing_entries WHERE organization = '{ACME}'", "seal_not_rows", SEALED_ACME),
        ("UPDATE billing_transactions SET reason = 'gift' WHERE reason = 'paid'", "seal_not_rows", SEALED_ACME),
        (INSERTED, "seal_not_rows", SEALED_ACME),
        (f"DELETE FROM billing_sealed_parts WHERE organization = '{ACME}'", "seal_not_rows", SEALED_ACME),
        (
            f"UPDATE billing_sealed_parts SET digest = day WHERE organization = '{GLOBEX}'",
            "seal_not_rows",
            f"{DAY}/{GLOBEX}",
        ),
        ("UPDATE billing_seals SET root = previous", "seal_chain_broken", DAY),
        (f"UPDATE billing_seals SET hash = root WHERE day = '{DAY}'", "seal_chain_broken", DAY),
        (f"DELETE FROM billing_seals WHERE day = '{DAY}'", "seal_chain_broken", "2026-03-04"),
    ],
)
async def test_what_was_tampered_with_is_named(books: SealBooks, tampering: str, name: str, subject: str) -> None:
    await books.pass_days(2)
    await books.seal()
    assert await books.verified() is None
    await books.tamper(tampering)
    found = await books.verified()
    assert found is not None
    assert (found.name, found.subject) == (name, subject)
    named = set()
    for _ in range(2):  # two days, and the newest one is always looked at
        named |= await books.seal_differences()
        books.clock.advance(HOUR_MS / 1000)
    assert (name, subject) in named


async def test_rows_of_one_who_had_none_are_found(books: SealBooks) -> None:
    await books.pass_days(1)
    await books.use(300)
    await books.pass_days(2)
    await books.seal()
    await books.tamper(
        f"UPDATE billing_charges SET charged_at_ms = charged_at_ms + {DAY_MS} WHERE organization = '{GLOBEX}'"
    )
    assert (await books.verified("2026-03-04")) is not None
    found = await books.verified()
    assert found is not None
    assert found.subject == f"{DAY}/{GLOBEX}"
    last = await books.verified("2026-03-04", "2026-03-04")
    assert last is not None
    assert last.subject == f"2026-03-04/{GLOBEX}"


async def test_what_is_put_in_before_the_first_seal_is_found(books: SealBooks) -> None:
    await books.pass_days(2)
    await books.seal()
    earlier = MARCH_MS - 40 * DAY_MS
    await books.tamper(INSERTED.replace("actor, posted_at_ms FROM", f"actor, {earlier} FROM"))
    found = await books.verified()
    assert found is not None
    assert (found.name, found.subject) == ("seal_not_rows", "2026-01-22")
    assert ("seal_not_rows", "2026-01-22") in await books.seal_differences()
    assert await books.verified("2026-03-04") is None, "the first day was not asked for"


async def test_whoever_makes_the_chain_anew_is_found_by_a_hash_that_was_written_down(books: SealBooks) -> None:
    await books.pass_days(2)
    noted = {seal.day: seal.hash for seal in await books.seal()}
    await books.tamper("UPDATE billing_charges SET endpoint = '/v1/embeddings'")
    for table in (Seal, SealedPart):
        await books.tamper(f"DELETE FROM {table.__tablename__}")
    await books.seal()
    assert await books.verified() is None
    assert noted.keys() == {seal.day for seal in await books.seals()}
    assert all(noted[seal.day] != seal.hash for seal in await books.seals())
