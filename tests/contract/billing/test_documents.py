"""Billing details, the issuer, and invoices as documents, as the API gives them."""

import io
from pathlib import Path
from typing import Any

import pytest
from pypdf import PdfReader
from redis.asyncio import Redis

from support.billing.api import OPERATOR, OTHER_TENANT, TENANT, Api, billing_api
from support.billing.invoice_books import InvoiceBooks
from support.billing.stand import ACME, GLOBEX, MARCH_MS, rows
from tokenyard.cli.command import CommandFailed, CommandRun
from tokenyard.cli.money import documents
from tokenyard.clients.platform_api.connection import ApiConnection, ApiFailed
from tokenyard.clients.platform_api.operator_api import OperatorApi
from tokenyard.settings import Settings
from tokenyard.storage.database import Database
from tokenyard.tenancy.tables import AuditRow
from tokenyard_billing.periods import DAY_MS

ISSUED, DRAFT = "inv_acme_2026-03", "inv_acme_2026-04"
OWN, ADMIN = "/v1/organization/billing_details", "/admin/organizations/acme/billing_details"
BUYER = {"legal_name": "Acme Widgets Ltd", "city": "Leeds", "country": "GB", "purchase_order": "PO-7"}
SELLER = {"legal_name": "Tokenhof GmbH", "country": "DE", "iban": "DE89370400440532013000"}


@pytest.fixture
async def books(database: Database, redis: Redis) -> InvoiceBooks:
    """Nobody has stated anything yet; March is not closed."""
    books = InvoiceBooks(database, redis)
    await books.use(1_000)
    return books


async def close(books: InvoiceBooks) -> None:
    """Issue the invoice of March, and draft that of April."""
    books.clock.advance(31 * DAY_MS / 1000)
    await books.close()
    await books.use(500, at_ms=MARCH_MS + 31 * DAY_MS)
    await books.draft()


async def pdf(api: Api, path: str, key: str = OPERATOR) -> str:
    status, kind, content = await api.content(f"{path}/pdf", key)
    assert (status, kind) == (200, "application/pdf")
    return " ".join(" ".join(page.extract_text() for page in PdfReader(io.BytesIO(content)).pages).split())


async def page(api: Api, path: str, key: str = OPERATOR) -> str:
    status, kind, content = await api.content(f"{path}/html", key)
    assert (status, kind) == (200, "text/html")
    return content.decode()


async def audited(database: Database) -> dict[str, Any]:
    entry = (await rows(database, AuditRow))[-1]
    return {
        "action": entry.action,
        "organization": entry.organization_id,
        "actor": entry.actor,
        "before": entry.before,
        "after": entry.details,
    }


async def test_details_are_stated_by_the_organization_or_for_it(database: Database, redis: Redis) -> None:
    async with billing_api(database, redis) as api:
        assert (await api.get(OWN, TENANT))[1]["details"] is None
        status, stated = await api.put(OWN, BUYER, TENANT)
        assert (status, stated["organization"]) == (200, ACME)
        assert {name: value for name, value in stated["details"].items() if value} == BUYER
        assert (await api.get(OWN, TENANT))[1] == (await api.get(ADMIN))[1] == stated
        assert (await api.get(OWN, OTHER_TENANT))[1]["details"] is None
        assert await audited(database) == {
            "action": "organization.billing_details_changed",
            "organization": ACME,
            "actor": "key_1",
            "before": {},
            "after": BUYER,
        }
        smaller = {"legal_name": "Acme", "country": "US"}
        assert (await api.put(ADMIN, smaller))[1]["details"]["purchase_order"] == ""
        found = await audited(database)
        assert (found["actor"], found["before"], found["after"]) == ("key_operator", BUYER, smaller)


async def test_the_issuer_is_stated_by_operators(database: Database, redis: Redis) -> None:
    async with billing_api(database, redis) as api:
        assert (await api.get("/admin/issuer"))[1]["details"] is None
        status, stated = await api.put("/admin/issuer", SELLER)
        assert (status, stated["issuer"], stated["details"]["legal_name"]) == (200, "tokenyard", "Tokenhof GmbH")
        assert (await api.get("/admin/issuer"))[1] == stated
        found = await audited(database)
        assert (found["action"], found["organization"], found["after"]) == ("issuer.details_changed", None, SELLER)
        for method in (api.get("/admin/issuer", TENANT), api.put("/admin/issuer", SELLER, TENANT)):
            assert (await method)[0] == 403


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (OWN, {"legal_name": "x"}, "country"),
        (OWN, {"legal_name": "x", "country": "XX"}, "country"),
        (OWN, {"legal_name": "a\x00", "country": "DE"}, "legal_name"),
        (OWN, {"legal_name": "x", "country": "DE", "email": "a\x00@example.com"}, "email"),
        (OWN, BUYER | {"iban": SELLER["iban"]}, "iban"),
        ("/admin/issuer", SELLER | {"iban": "DE00"}, "iban"),
        ("/admin/issuer", SELLER | {"purchase_order": "x"}, "purchase_order"),
    ],
)
async def test_what_is_wrong_is_named(
    database: Database, redis: Redis, path: str, body: dict[str, str], param: str
) -> None:
    async with billing_api(database, redis) as api:
        status, refused = await api.put(path, body, TENANT if path == OWN else OPERATOR)
        assert (status, refused["error"]["param"]) == (400, param)


async def test_an_issued_invoice_keeps_its_parties_and_a_draft_shows_those_of_now(books: InvoiceBooks) -> None:
    async with billing_api(books.database, books.redis) as api:
        await api.put(OWN, BUYER, TENANT)
        await api.put("/admin/issuer", SELLER)
        await close(books)
        path = f"/v1/organization/invoices/{ISSUED}"
        issued = [await api.content(f"{path}/{kind}", TENANT) for kind in ("pdf", "html")]
        await api.put(OWN, BUYER | {"legal_name": "Acme Holding plc"}, TENANT)
        await api.put("/admin/issuer", SELLER | {"legal_name": "Tokenhof SE"})
        assert [await api.content(f"{path}/{kind}", TENANT) for kind in ("pdf", "html")] == issued
        for shown in (await pdf(api, path, TENANT), await page(api, path, TENANT)):
            assert "INV-000001" in shown
            assert "Acme Widgets Ltd" in shown
            assert "Tokenhof GmbH" in shown
            assert "PO-7" in shown
            assert "DE89 3704 0044 0532 0130 00" in shown
        draft = f"/v1/organization/invoices/{DRAFT}"
        for shown in (await pdf(api, draft, TENANT), await page(api, draft, TENANT)):
            assert "DRAFT" in shown
            assert "Acme Holding plc" in shown
            assert "Tokenhof SE" in shown


async def test_documents_are_the_organizations_own(books: InvoiceBooks) -> None:
    await close(books)
    async with billing_api(books.database, books.redis) as api:
        for kind in ("pdf", "html"):
            own = await api.content(f"/v1/organization/invoices/{ISSUED}/{kind}", TENANT)
            assert own == await api.content(f"/admin/invoices/{ISSUED}/{kind}")
            for path, key, status in (
                (f"/v1/organization/invoices/{ISSUED}/{kind}", OTHER_TENANT, 404),
                (f"/v1/organization/invoices/inv_none/{kind}", TENANT, 404),
                (f"/admin/invoices/inv_none/{kind}", OPERATOR, 404),
                (f"/admin/invoices/{ISSUED}/{kind}", TENANT, 403),
            ):
                assert (await api.content(path, key))[:2] == (status, "application/json")


async def test_who_stated_nothing_has_documents_too(books: InvoiceBooks) -> None:
    await close(books)
    async with billing_api(books.database, books.redis) as api:
        shown = await pdf(api, f"/admin/invoices/{ISSUED}")
        await api.put(ADMIN, BUYER)
        assert await pdf(api, f"/admin/invoices/{ISSUED}") == shown
        assert ACME in shown
        assert GLOBEX not in shown


async def test_how_it_ended_is_shown(books: InvoiceBooks) -> None:
    await close(books)
    async with billing_api(books.database, books.redis) as api:
        path = f"/admin/invoices/{ISSUED}"
        assert "PAID" not in await pdf(api, path)
        await api.post(f"{path}/pay", {"reference": "bank <17>"})
        for shown in (await pdf(api, path), await page(api, path)):
            assert "PAID" in shown
        assert "bank <17>" in await pdf(api, path)
        assert "bank &lt;17&gt;" in await page(api, path)


async def test_a_page_runs_nothing_and_loads_nothing(books: InvoiceBooks) -> None:
    await close(books)
    async with (
        billing_api(books.database, books.redis) as api,
        api.session.get(
            f"{api.url}/admin/invoices/{ISSUED}/html", headers={"authorization": f"Bearer {OPERATOR}"}
        ) as answer,
    ):
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert answer.headers["content-disposition"] == 'inline; filename="INV-000001.html"'
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_the_command_line_states_parties_and_writes_files(books: InvoiceBooks, tmp_path: Path) -> None:
    await close(books)
    async with billing_api(books.database, books.redis) as api, ApiConnection(api.url) as connection:
        run = CommandRun(Settings(data_dir=tmp_path), api.url, OperatorApi(connection, OPERATOR), json=False)
        assert "details: -" in (await documents.issuer(run)).text
        await documents.issuer(run, ["legal_name=Tokenhof GmbH", "country=DE", "city=Berlin"])
        assert "legal name: Tokenhof GmbH" in (await documents.issuer(run)).text
        await documents.issuer(run, ["city=", "postal_code=01067"])
        stated = (await api.get("/admin/issuer"))[1]["details"]
        assert (stated["legal_name"], stated["city"], stated["postal_code"]) == ("Tokenhof GmbH", "", "01067")
        await documents.billing_details(run, "acme", ["legal_name=A = B", "country=GB"])
        assert "legal name: A = B" in (await documents.billing_details(run, "acme")).text
        with pytest.raises(CommandFailed, match="country=DE"):
            await documents.issuer(run, ["country"])
        with pytest.raises(ApiFailed, match="colour"):
            await documents.issuer(run, ["colour=red"])
        path = tmp_path / "march.pdf"
        assert str(path) in (await documents.pdf(run, ISSUED, path)).text
        assert path.read_bytes() == (await api.content(f"/admin/invoices/{ISSUED}/pdf"))[2]
        with pytest.raises(ApiFailed, match="No such invoice"):
            await documents.pdf(run, "inv_none", tmp_path / "none.pdf")
        assert not (tmp_path / "none.pdf").exists()
        with pytest.raises(CommandFailed, match="cannot be written"):
            await documents.pdf(run, ISSUED, tmp_path / "nowhere" / "march.pdf")


async def test_a_credit_note_is_a_document_of_its_tenant(books: InvoiceBooks) -> None:
    async with billing_api(books.database, books.redis) as api:
        await api.put("/admin/issuer", SELLER)
        await api.put(OWN, BUYER, TENANT)
        await close(books)
        await books.correct(period="2026-03")
        await api.put(OWN, {**BUYER, "legal_name": "Another name"}, TENANT)
        [note] = (await api.get("/v1/organization/credit_notes", TENANT))[1]["data"]
        own = f"/v1/organization/credit_notes/{note['id']}"
        text = await pdf(api, own, TENANT)
        for said in ("Credit note", "CN-000001", "INV-000001 of March 2026", "Acme Widgets Ltd", "Reason: wrong"):
            assert said in text, said
        assert await pdf(api, f"/admin/credit_notes/{note['id']}") == text
        assert "CN-000001" in await page(api, own, TENANT)
        for ending in ("pdf", "html"):
            assert (await api.content(f"{own}/{ending}", OTHER_TENANT))[0] == 404
            assert (await api.content(f"/admin/credit_notes/cn_none/{ending}"))[0] == 404
            assert (await api.content(f"/admin/credit_notes/{note['id']}/{ending}", TENANT))[0] == 403
