"""Seals and proofs of invoices, as the API and the command line give them."""

from pathlib import Path

import pytest
from redis.asyncio import Redis

from support.billing.api import OPERATOR, OTHER_TENANT, TENANT, billing_api
from support.billing.proof_files import verify
from support.billing.seal_books import SealBooks
from support.billing.stand import ACME, GLOBEX
from support.billing.tax_books import APRIL_MS
from tokenyard.cli.command import CommandFailed, CommandRun
from tokenyard.cli.money import documents, seals
from tokenyard.cli.output import CommandOutput
from tokenyard.clients.platform_api.connection import ApiConnection, ApiFailed
from tokenyard.clients.platform_api.operator_api import OperatorApi
from tokenyard.settings import Settings
from tokenyard.storage.database import Database
from tokenyard_billing.periods import DAY_MS

ISSUED, DRAFT = "inv_acme_2026-03", "inv_acme_2026-04"


@pytest.fixture
async def books(database: Database, redis: Redis) -> SealBooks:
    """March is closed, April is not; all days before the fifth of April are sealed."""
    books = SealBooks(database, redis)
    for organization in (ACME, GLOBEX):
        await books.use(30_000_000, organization)
    books.at(APRIL_MS)
    await books.close()
    await books.use(500)
    await books.draft()
    books.at(APRIL_MS + 2 * DAY_MS)
    await books.seal()
    return books


def said(answer: CommandOutput | None) -> str:
    assert answer is not None
    return answer.text


async def test_seals_are_listed_for_operators_and_tenants(books: SealBooks) -> None:
    async with billing_api(books.database, books.redis) as api:
        stored = [(seal.day, seal.hash) for seal in reversed(await books.seals())]
        for path, key in (("/admin/seals", OPERATOR), ("/v1/organization/seals", TENANT)):
            status, first = await api.get(path, key, limit="3")
            assert (status, first["has_more"]) == (200, True)
            _, rest = await api.get(path, key, after=first["last_id"])
            assert [(one["day"], one["hash"]) for one in (*first["data"], *rest["data"])] == stored
            assert (await api.get(path, key, after="yesterday"))[0] == 400
        shown = (await api.get("/v1/organization/seals", TENANT))[1]["data"][0]
        assert set(shown) == {"id", "object", "day", "hash"}, "how many others there are is not told"
        assert (await api.get("/admin/seals", TENANT))[0] == 403


async def test_verification_names_the_first_day_and_organization(books: SealBooks) -> None:
    async with billing_api(books.database, books.redis) as api:
        found = (await api.get("/admin/seals/verification"))[1]
        assert (found["days"], found["more"], found["difference"]) == (len(await books.seals()), False, None)
        await books.tamper(f"UPDATE billing_charges SET rule = 'x' WHERE organization = '{GLOBEX}'")
        found = (await api.get("/admin/seals/verification"))[1]["difference"]
        assert (found["name"], found["day"], found["organization"]) == ("seal_not_rows", "2026-03-03", GLOBEX)
        later = (await api.get("/admin/seals/verification", first="2026-03-04", last="2026-03-06"))[1]
        assert (later["days"], later["through"], later["difference"]) == (3, "2026-03-06", None)
        assert (await api.get("/admin/seals/verification", first="x"))[0] == 400
        assert (await api.get("/admin/seals/verification", TENANT))[0] == 403


async def test_a_proof_is_the_organizations_own_and_of_what_was_issued(books: SealBooks) -> None:
    async with billing_api(books.database, books.redis) as api:
        own = await api.content(f"/v1/organization/invoices/{ISSUED}/proof", TENANT)
        assert own[:2] == (200, "application/zip")
        assert own == await api.content(f"/admin/invoices/{ISSUED}/proof")
        for path, key, status in (
            (f"/v1/organization/invoices/{ISSUED}/proof", OTHER_TENANT, 404),
            ("/v1/organization/invoices/inv_none/proof", TENANT, 404),
            ("/admin/invoices/inv_none/proof", OPERATOR, 404),
            (f"/admin/invoices/{ISSUED}/proof", TENANT, 403),
        ):
            assert (await api.content(path, key))[:2] == (status, "application/json")
        for path, key in (("/v1/organization", TENANT), ("/admin", OPERATOR)):
            status, refused = await api.get(f"{path}/invoices/{DRAFT}/proof", key)
            assert (status, "is a draft" in refused["error"]["message"]) == (409, True)


async def test_the_command_line_lists_verifies_and_writes_proofs(books: SealBooks, tmp_path: Path) -> None:
    async with billing_api(books.database, books.redis) as api, ApiConnection(api.url) as connection:
        run = CommandRun(Settings(data_dir=tmp_path), api.url, OperatorApi(connection, OPERATOR), json=False)
        newest = (await books.seals())[-1]
        assert newest.hash in said(await seals.listing(run))
        assert said(await seals.listing(run, 2)).count("2026-") == 4, "two days, and when they were sealed"
        assert said(await seals.verify(run)).startswith(f"{len(await books.seals())} days agree")
        path = tmp_path / "proof.zip"
        assert str(path) in (await documents.proof(run, ISSUED, path)).text
        code, answer = await verify(path, "--seal", f"2026-03-03={(await books.seals())[0].hash}")
        assert code == 0, answer
        with pytest.raises(ApiFailed, match="is a draft"):
            await documents.proof(run, DRAFT, tmp_path / "draft.zip")
        await books.tamper("DELETE FROM billing_seals WHERE day = '2026-03-10'")
        with pytest.raises(CommandFailed, match="is not what was sealed"):
            await seals.verify(run)


async def test_a_long_verification_goes_on_behind_what_was_read(
    books: SealBooks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokenyard_billing.sealing.operator_store.MAX_DAYS", 7)
    async with billing_api(books.database, books.redis) as api, ApiConnection(api.url) as connection:
        first = (await api.get("/admin/seals/verification"))[1]
        assert (first["days"], first["through"], first["more"]) == (7, "2026-03-09", True)
        run = CommandRun(Settings(data_dir=tmp_path), api.url, OperatorApi(connection, OPERATOR), json=False)
        assert said(await seals.verify(run)).startswith(f"{len(await books.seals())} days agree")
