"""The operator's pages, in a real browser, in front of a real gateway over real stores.

The dashboard's process has no address but the API's: no database, no Redis, and a secret of its own.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import insert

from support.finetune.rows import rows
from support.servers.free_ports import free_port
from support.servers.installation import running_installation, running_process
from tokenyard.bootstrap.operator_key import first_admin_key
from tokenyard.bootstrap.tables import import_all_tables
from tokenyard.clients.platform_api.connection import ApiConnection, ApiFailed
from tokenyard.clients.platform_api.operator_api import OperatorApi
from tokenyard.clients.platform_api.shapes import JobInfo
from tokenyard.clients.platform_api.tenant_api import TenantApi
from tokenyard.core.money import from_dollars, to_dollars
from tokenyard.settings import Settings
from tokenyard.stack.installation import environment_of
from tokenyard.storage.database import Database
from tokenyard_billing.invoice_tables import Invoice, InvoiceLine
from tokenyard_billing.tables import Alarm, HourlyUsage
from tokenyard_dashboard.app import KEY_NAME
from tokenyard_dashboard.session import COOKIE

HOUR_MS = 3_600_000
MODEL = "smollm2-135m-instruct"
TUNED = f"ft:{MODEL}:acme:bot:1"
SECRET = "s" * 48
ORGANIZATIONS = 9  # more than the chart has colours

T = TypeVar("T")


def elsewhere(work: Callable[[], Awaitable[T]]) -> T:
    """Run `work` in another thread: Playwright's own loop runs in this one."""

    async def run() -> T:
        return await work()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, run()).result()


@dataclass(frozen=True)
class Platform:
    """What the pages show: organization `acme` with usage, an invoice, a job; eight others with a little usage."""

    settings: Settings
    dashboard: str
    admin_key: str
    acme: str
    tenant_key: str
    job: str

    def operator(self, work: Callable[[OperatorApi], Awaitable[T]]) -> T:
        async def run() -> T:
            async with ApiConnection(self.settings.effective_api_url) as connection:
                return await work(OperatorApi(connection, self.admin_key))

        return elsewhere(run)

    def session_keys(self) -> list[str]:
        keys = self.operator(lambda api: api.operator_keys())
        return [key.id for key in keys if key.name == KEY_NAME]

    def log_in(self, page: Page) -> str:
        """Log in; return the id of the session's key."""
        before = set(self.session_keys())
        page.goto(self.dashboard)
        page.get_by_label("Admin key").fill(self.admin_key)
        page.get_by_role("button", name="Log in").click()
        page.wait_for_url(f"{self.dashboard}/")
        (made,) = set(self.session_keys()) - before
        return made


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("installation")
    port, worker_port = free_port(), free_port()
    with running_installation(folder) as settings, _worker(settings, worker_port, folder):
        environment = {
            "TOKENYARD_API_URL": settings.effective_api_url,
            "TOKENYARD_SECRET": SECRET,
            "TOKENYARD_DASHBOARD_PORT": str(port),
            "HOME": "/nonexistent",
        }
        admin_key, acme, tenant_key, job = elsewhere(lambda: _filled(settings, folder))
        with running_process("dashboard", environment, port, folder) as url:
            yield Platform(settings, url, admin_key, acme, tenant_key, job)


def _worker(settings: Settings, port: int, folder: Path) -> AbstractContextManager[str]:
    """Return a worker that loads the budgets; there is no Ray to train on."""
    (folder / "ray_token").write_text("t" * 48)
    environment = environment_of(settings) | {
        "TOKENYARD_WORKER_PORT": str(port),
        "TOKENYARD_RAY_URL": f"http://127.0.0.1:{free_port()}",
        "TOKENYARD_RAY_TOKEN_FILE": str(folder / "ray_token"),
    }
    return running_process("worker", environment, port, folder)


async def _filled(settings: Settings, folder: Path) -> tuple[str, str, str, str]:
    admin_key = await first_admin_key(settings)
    assert admin_key
    dataset = folder / "teach.jsonl"
    dataset.write_bytes(rows(12))
    async with ApiConnection(settings.effective_api_url) as connection:
        api = OperatorApi(connection, admin_key)
        acme = (await api.create_organization(name="Acme <b>Corp</b>", slug="acme")).id
        others = [(await api.create_organization(name=f"Other {n}", slug=f"o{n}")).id for n in range(ORGANIZATIONS - 1)]
        await api.create_organization(name="Zero", slug="zero")
        tenant_key = (await api.create_key(acme, name="test")).value
        tenant = TenantApi(connection, tenant_key)
        file = await tenant.upload_training_file(dataset)
        job = await _created(tenant, file.id)
    await _charge(settings, acme, others)
    return admin_key, acme, tenant_key, job.id


async def _created(tenant: TenantApi, file: str) -> JobInfo:
    """Create a job as soon as the worker has loaded the budgets."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await tenant.create_job({"model": MODEL, "training_file": file, "suffix": "bot", "seed": 1})
            except ApiFailed as error:
                if not error.passing:
                    raise
            await asyncio.sleep(0.2)


async def _charge(settings: Settings, acme: str, others: list[str]) -> None:
    import_all_tables()
    database = Database(settings.effective_database_url)
    hour = int(time.time() * 1000) // HOUR_MS * HOUR_MS
    usage = {
        **{"project": "proj_1", "key": "key_1", "kind": "inference", "price": f"2026-01-01/{MODEL}", "requests": 3},
        **{"prompt_tokens": 1000, "cached_tokens": 0, "completion_tokens": 50, "trained_tokens": 0},
    }
    used = [
        {
            **usage,
            "organization": acme,
            "model": model,
            "hour_ms": hour - back * HOUR_MS,
            "amount": 1_000_000 * (back + 1),
        }
        for back in range(3)
        for model in (MODEL, TUNED)
    ]
    used += [
        {**usage, "organization": other, "model": MODEL, "hour_ms": hour, "amount": 100_000 - number}
        for number, other in enumerate(others)
    ]
    invoice = {"id": "inv_1", "organization": acme, "period": "2026-11", "time_zone": "UTC", "state": "draft"}
    money = {"total": 3_000_000, "credit_applied": 3_000_000, "amount_due": 0, "drafted_at_ms": hour}
    dated = {"period_start_ms": hour, "period_end_ms": hour + HOUR_MS}
    line = {"invoice": "inv_1", "usage_period": "2026-11", "model": MODEL, "price": f"2026-01-01/{MODEL}"}
    lines = [
        {**line, "number": 1, "kind": "input", "quantity": 10_000, "rate": 200, "amount": 2_000_000},
        {**line, "number": 2, "kind": "output", "quantity": 2_500, "rate": 400, "amount": 1_000_000},
    ]
    alarm = {"kind": "no_report", "subject": "req_1", "message": "No witness reported it.", "at_ms": hour}
    async with database.transaction() as session:
        await session.execute(insert(HourlyUsage), used)
        await session.execute(insert(Invoice), [{**invoice, **money, **dated}])
        await session.execute(insert(InvoiceLine), lines)
        await session.execute(insert(Alarm), [alarm])
    await database.close()


def test_nothing_is_shown_without_an_admin_key(page: Page, platform: Platform) -> None:
    for path in ("/", "/jobs", "/invoices", "/invoices/inv_1", f"/organizations/{platform.acme}"):
        page.goto(platform.dashboard + path)
        assert page.url == f"{platform.dashboard}/login"
    for wrong in ("ty-wrong", "ty-admin-ünknown", platform.tenant_key):
        page.get_by_label("Admin key").fill(wrong)
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("alert")).to_have_text("That is not a valid admin key.")
    assert page.context.cookies() == []


def test_the_session_holds_a_short_lived_key_and_hides_it(page: Page, platform: Platform) -> None:
    made = platform.log_in(page)
    (cookie,) = page.context.cookies()
    assert (cookie["name"], cookie["httpOnly"], cookie["sameSite"]) == (COOKIE, True, "Strict")
    assert "ty-admin" not in cookie["value"]
    (key,) = [key for key in platform.operator(lambda api: api.operator_keys()) if key.id == made]
    assert key.expires_at is not None
    assert 7.9 * 3600 < key.expires_at - time.time() <= 8 * 3600


def test_the_overview_shows_usage_over_time_and_by_model(page: Page, platform: Platform) -> None:
    platform.log_in(page)
    expect(page.locator("#organizations tbody tr")).to_have_count(ORGANIZATIONS + 1)
    row = page.locator("#organizations tbody tr").first
    expect(row).to_contain_text("Acme <b>Corp</b>")  # shown as text, not taken as markup
    expect(row).to_contain_text("$0.012")
    expect(page.locator("#organizations tbody tr").last).to_contain_text("Zero")
    expect(page.locator("#models tbody tr")).to_have_count(2)
    expect(page.locator("#alarms")).to_contain_text("No witness reported it.")
    page.get_by_role("link", name="24 hours").click()
    expect(page.locator(".key")).to_have_count(6)
    expect(page.locator(".key").last).to_have_text("other")
    expect(page.locator("figure rect")).to_have_count(3 + 4 + 1)  # acme's hours, four more with a colour, all others
    expect(page.locator("figure rect title").first).to_contain_text("Acme")
    titles = page.locator("figure rect title").all_text_contents()
    (rest,) = [title for title in titles if "other" in title]
    assert rest.endswith("$0.0004"), rest


def test_an_organizations_page_splits_by_model(page: Page, platform: Platform) -> None:
    platform.log_in(page)
    page.get_by_role("link", name="Acme").first.click()
    page.get_by_role("link", name="24 hours").click()
    expect(page.locator("figure rect")).to_have_count(6)
    expect(page.locator("main")).to_contain_text("wallet $4.9")  # the opening credit without what the job reserves
    expect(page.locator("#models")).to_contain_text(TUNED)
    expect(page.locator("#jobs")).to_contain_text(platform.job)
    expect(page.locator("#invoices")).to_contain_text("2026-11")


def test_an_invoice_adds_up_before_the_readers_eyes(page: Page, platform: Platform) -> None:
    platform.log_in(page)
    page.get_by_role("link", name="Invoices").click()
    page.get_by_role("link", name="inv_1").click()
    expect(page.locator("#lines tbody tr")).to_have_count(2)
    expect(page.locator("main")).to_contain_text("Acme <b>Corp</b>")
    expect(page.locator("main")).to_contain_text(f"draft of {datetime.now(UTC):%Y-%m-}")
    amounts = page.locator("#lines tbody td:last-child").all_inner_texts()
    assert sum(from_dollars(amount.removeprefix("$")) for amount in amounts) == 3_000_000
    expect(page.locator("#total")).to_have_text(f"${to_dollars(3_000_000)}")


def test_jobs_of_all_organizations(page: Page, platform: Platform) -> None:
    platform.log_in(page)
    page.get_by_role("link", name="Fine-tuning jobs").click()
    row = page.locator("#jobs tbody tr", has_text=platform.job)
    expect(row).to_contain_text("Acme <b>Corp</b>")


def test_a_revoked_key_ends_the_session_at_once(page: Page, platform: Platform) -> None:
    made = platform.log_in(page)
    platform.operator(lambda api: api.revoke_operator_key(made))
    page.goto(f"{platform.dashboard}/invoices")
    assert page.url == f"{platform.dashboard}/login"
    assert page.context.cookies() == []


def test_logging_out_revokes_the_key(page: Page, platform: Platform) -> None:
    made = platform.log_in(page)
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url(f"{platform.dashboard}/login")
    assert made not in platform.session_keys()


@pytest.mark.parametrize("path", ["/invoices/inv_none", "/organizations/nobody", "/nothing"])
def test_an_unknown_page_says_so(page: Page, platform: Platform, path: str) -> None:
    platform.log_in(page)
    answer = page.goto(platform.dashboard + path)
    assert answer
    assert answer.status == 404
    expect(page.locator("main")).to_contain_text("No such" if path != "/nothing" else "Not Found")


def test_an_api_that_is_away_is_said_so(page: Page, platform: Platform, tmp_path: Path) -> None:
    platform.log_in(page)  # its cookie counts for every port of this host
    port = free_port()
    environment = {
        "TOKENYARD_API_URL": f"http://127.0.0.1:{free_port()}",
        "TOKENYARD_SECRET": SECRET,
        "TOKENYARD_DASHBOARD_PORT": str(port),
    }
    with running_process("dashboard", environment, port, tmp_path) as url:
        answer = page.goto(f"{url}/")
        assert answer
        assert answer.status == 503
        expect(page.locator("main")).to_contain_text("The platform's API does not answer.")
        page.goto(f"{url}/login")
        page.get_by_label("Admin key").fill(platform.admin_key)
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("alert")).to_contain_text("does not answer")
