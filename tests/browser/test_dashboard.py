"""The operator's pages, in a real browser, over a real database."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Page, expect
from sqlalchemy import insert

from tokenyard.bootstrap.tables import import_all_tables
from tokenyard.core.clock import SystemClock
from tokenyard.core.errors import Unauthenticated
from tokenyard.core.ids import ApiKeyId, OrganizationId
from tokenyard.core.money import from_dollars, to_dollars
from tokenyard.core.principal import Operator, Principal
from tokenyard.storage.database import Base, Database
from tokenyard_billing.tables import Balance, HourlyUsage, Invoice, InvoiceLine
from tokenyard_dashboard.app import create_app
from tokenyard_dashboard.pages import Sources
from tokenyard_dashboard.ports import JobRow
from tokenyard_dashboard.queries import Invoices, Usages
from tokenyard_dashboard.session import Sessions

ACME = OrganizationId("org_acme")
NAMES = {ACME: ("Acme <b>Corp</b>", "acme"), OrganizationId("org_zero"): ("Zero", "zero")}
ADMIN_KEY = "ty-admin-secret"
HOUR_MS = 3_600_000


class Names:
    async def names(self) -> dict[OrganizationId, tuple[str, str]]:
        return NAMES


class Jobs:
    async def recent(self, organization: OrganizationId | None, limit: int) -> Sequence[JobRow]:
        job = JobRow("ftjob-1", ACME, "smollm2", "succeeded", "ft:smollm2:acme:bot:1", 500, 1_760_000_000, None, None)
        return [job][:limit] if organization in (None, ACME) else []


class Keys:
    """One operator key, which a test may revoke."""

    def __init__(self) -> None:
        self.active = True

    async def is_active(self, key: ApiKeyId) -> bool:
        return self.active and key == "key_admin"

    async def operator(self, secret: str) -> Operator:
        if secret != ADMIN_KEY:
            raise Unauthenticated("no")
        return Operator(ApiKeyId("key_admin"))

    async def tenant(self, secret: str) -> Principal:
        raise Unauthenticated("no")


async def _seed(database_url: str) -> None:
    import_all_tables()
    database = Database(database_url)
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    hour = int(time.time() * 1000) // HOUR_MS * HOUR_MS
    usage = {
        "organization": ACME,
        "project": "proj_1",
        "key": "key_1",
        "kind": "inference",
        "price": "2026-01-01/smollm2",
        "requests": 3,
        "prompt_tokens": 1000,
        "cached_tokens": 0,
        "completion_tokens": 50,
        "trained_tokens": 0,
    }
    invoice = {"id": "inv_1", "organization": ACME, "period": "2026-11", "time_zone": "UTC", "state": "draft"}
    money = {"total": 3_000_000, "credit_applied": 3_000_000, "amount_due": 0, "drafted_at_ms": hour}
    line = {"invoice": "inv_1", "model": "smollm2", "price": "2026-01-01/smollm2"}
    async with database.transaction() as session:
        rows = [
            {**usage, "model": model, "hour_ms": hour - back * HOUR_MS, "amount": 1_000_000 * (back + 1)}
            for back in range(3)
            for model in ("smollm2", "ft:smollm2:acme:bot:1")
        ]
        await session.execute(insert(HourlyUsage), rows)
        await session.execute(
            insert(Balance),
            [
                {
                    "organization": ACME,
                    "account": "wallet",
                    "bucket": 1,
                    "amount": 4_988_000_000,
                    "version": 2,
                    "updated_at_ms": hour,
                }
            ],
        )
        await session.execute(insert(Invoice), [{**invoice, **money}])
        await session.execute(
            insert(InvoiceLine),
            [
                {**line, "number": 1, "kind": "input", "quantity": 10_000, "rate": 200, "amount": 2_000_000},
                {**line, "number": 2, "kind": "output", "quantity": 2_500, "rate": 400, "amount": 1_000_000},
            ],
        )
    await database.close()


@pytest.fixture
def keys() -> Keys:
    return Keys()


@pytest.fixture
def url(tmp_path: Path, keys: Keys) -> Iterator[str]:
    database_url = f"sqlite+aiosqlite:///{tmp_path / 'dashboard.db'}"
    with ThreadPoolExecutor(1) as pool:  # Playwright's own loop runs in this thread
        pool.submit(asyncio.run, _seed(database_url)).result()
    database = Database(database_url)
    sources = Sources(Usages(database), Invoices(database), Names(), Jobs(), SystemClock())
    app = create_app(sources, Sessions(b"s" * 32, keys, secure=False), keys)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(10)


def log_in(page: Page, url: str) -> None:
    page.goto(url)
    page.get_by_label("Admin key").fill(ADMIN_KEY)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(url + "/")


def test_nothing_is_shown_without_the_admin_key(page: Page, url: str) -> None:
    for path in ("/", "/jobs", "/invoices", "/invoices/inv_1", f"/organizations/{ACME}"):
        page.goto(url + path)
        assert page.url == url + "/login"
    page.get_by_label("Admin key").fill("ty-wrong")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_have_text("That is not a valid admin key.")


def test_the_overview_shows_usage_over_time_and_by_model(page: Page, url: str) -> None:
    log_in(page, url)
    expect(page.locator("#organizations tbody tr")).to_have_count(2)
    row = page.locator("#organizations tbody tr").first
    expect(row).to_contain_text("Acme <b>Corp</b>")  # shown as text, not taken as markup
    expect(row).to_contain_text("$0.012")
    expect(row).to_contain_text("$4.988")
    page.get_by_role("link", name="24 hours").click()
    assert page.locator("figure rect").count() == 3
    expect(page.locator("figure rect title").first).to_contain_text("Acme")
    expect(page.locator("#models tbody tr")).to_have_count(2)


def test_an_organizations_page_splits_by_model(page: Page, url: str) -> None:
    log_in(page, url)
    page.get_by_role("link", name="Acme").first.click()
    page.get_by_role("link", name="24 hours").click()
    assert page.locator("figure rect").count() == 6
    expect(page.locator("#jobs")).to_contain_text("ft:smollm2:acme:bot:1")
    expect(page.locator("#invoices")).to_contain_text("2026-11")


def test_an_invoice_adds_up_before_the_readers_eyes(page: Page, url: str) -> None:
    log_in(page, url)
    page.get_by_role("link", name="Invoices").click()
    page.get_by_role("link", name="inv_1").click()
    amounts = page.locator("#lines tbody td:last-child").all_inner_texts()
    assert sum(from_dollars(amount.removeprefix("$")) for amount in amounts) == 3_000_000
    expect(page.locator("#total")).to_have_text(f"${to_dollars(3_000_000)}")


def test_a_revoked_key_ends_the_session(page: Page, url: str, keys: Keys) -> None:
    log_in(page, url)
    keys.active = False
    page.goto(url + "/invoices")
    assert page.url == url + "/login"


def test_an_unknown_page_says_so(page: Page, url: str) -> None:
    log_in(page, url)
    answer = page.goto(url + "/invoices/inv_none")
    assert answer
    assert answer.status == 404
    expect(page.locator("main")).to_contain_text("No such invoice")
