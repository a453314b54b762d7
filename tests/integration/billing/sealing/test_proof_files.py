"""Proofs while others write, where files cannot be written, and for those who do not read them."""

import gc
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.types import Message

from support.billing.invoice_books import CHEAP, DEAR
from support.billing.proof_books import APRIL, MARCH, two_months
from support.billing.proof_files import proof_of, verify
from support.billing.seal_books import SealBooks
from support.fakes.rate_cards import SHIPPED_CARDS
from tokenyard.core.errors import RateLimited, Unavailable
from tokenyard.storage.database import Database
from tokenyard_billing.invoice_proofs import contents, files
from tokenyard_billing.invoice_proofs.files import MAX_OPEN_OF_ONE, ProofFiles, ProofResponse
from tokenyard_billing.invoice_tables import Invoice
from tokenyard_billing.pricing.prices import PriceList
from tokenyard_billing.sealing.lines import charge_lines, transaction_lines

SQLITE = pytest.mark.parametrize("database", ["sqlite"], indirect=True)
OF_APRIL = select(Invoice).where(Invoice.id == APRIL)


@pytest.fixture
async def books(database: Database, redis: Redis) -> SealBooks:
    return await two_months(database, redis)


def proofs(books: SealBooks, *, known: bool = True) -> ProofFiles:
    return ProofFiles(books.database, PriceList((*SHIPPED_CARDS, CHEAP, DEAR) if known else SHIPPED_CARDS))


async def test_what_is_charged_while_a_proof_is_made_makes_it_no_worse(
    books: SealBooks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The day of the issue goes on."""

    async def later(session: AsyncSession, day: str, organization: str) -> AsyncIterator[list[bytes]]:
        await books.use(70_000)
        async for lines in transaction_lines(session, day, organization):
            yield lines

    monkeypatch.setattr(contents, "DAY_READS", (charge_lines, later))
    code, said = await verify(await proof_of(books, APRIL, tmp_path / "april.zip"))
    assert code == 0, said


@SQLITE
async def test_who_does_not_read_keeps_a_few_files_and_no_more(books: SealBooks) -> None:
    asked = proofs(books)
    kept = [await asked.proof(OF_APRIL) for _ in range(MAX_OPEN_OF_ONE)]
    with pytest.raises(RateLimited):
        await asked.proof(OF_APRIL)
    await send(kept.pop())
    kept.append(await asked.proof(OF_APRIL))
    with pytest.raises(RateLimited):
        await asked.proof(select(Invoice).where(Invoice.id == MARCH))
    for one in kept:
        await send(one)


async def send(response: ProofResponse) -> None:
    """Let a client read all of it."""

    async def read(_message: Message) -> None: ...

    async def stay() -> Message:
        raise AssertionError("nobody listens for it")

    await response({"type": "http", "asgi": {"spec_version": "2.4"}}, stay, read)


@SQLITE
async def test_a_proof_that_cannot_be_written_is_put_off(books: SealBooks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    monkeypatch.setattr(files, "_IN_MEMORY", 1)
    with pytest.raises(Unavailable, match="cannot be written"):
        await proofs(books).proof(OF_APRIL)
    gc.collect()


@SQLITE
async def test_a_proof_whose_prices_are_not_known_leaves_nothing_behind(books: SealBooks) -> None:
    with pytest.raises(Unavailable, match="rate card"):
        await proofs(books, known=False).proof(OF_APRIL)
    gc.collect()
