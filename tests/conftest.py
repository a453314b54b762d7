"""Real Valkey, SQLite, PostgreSQL and Chromium for every test that asks for them."""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from zlib import crc32

import hypothesis
import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from redis.asyncio import Redis
from s3fs import S3FileSystem
from sqlalchemy import create_engine

from support.servers.free_ports import free_port
from support.servers.object_store import BUCKET, object_store
from support.servers.postgres import postgres_with_tables, running_postgres
from support.servers.sqlite import fresh_copy
from support.servers.valkey import running_valkey
from tokenyard.bootstrap.tables import import_all_tables
from tokenyard.storage.database import Base, Database
from tokenyard.storage.redis import connect_redis

# How long an example takes says more of the machine than of the code.
hypothesis.settings.register_profile("tokenyard", deadline=None)
hypothesis.settings.load_profile("tokenyard")


# What is about money, about faults or about SQL itself is tried on both databases.
_ON_BOTH = ("tests/fault", "tests/property", "tests/integration/billing", "tests/integration/storage")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With `DATABASES=by_turns` every other test of both databases is tried on one of them, by its name."""
    if os.environ.get("DATABASES") != "by_turns":
        return
    pairs: dict[str, dict[str, pytest.Item]] = {}
    for item in items:
        database = item.callspec.params.get("database") if hasattr(item, "callspec") else None
        if database is not None and not item.nodeid.startswith(_ON_BOTH):
            pairs.setdefault(item.nodeid.replace(database, ""), {})[database] = item
    turns = {name: ("sqlite", "postgres")[crc32(name.encode()) % 2] for name in pairs}
    left_out = {pair.pop(turns[name]).nodeid for name, pair in pairs.items() if len(pair) == 2}
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid in left_out])
    items[:] = [item for item in items if item.nodeid not in left_out]


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder, running_valkey(Path(folder), free_port()) as url:
        yield url


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    client = connect_redis(redis_url)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    with running_postgres() as url:
        yield url


@pytest.fixture(scope="session")
def empty_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with all tables and no row, to be copied."""
    import_all_tables()
    path = tmp_path_factory.mktemp("sqlite") / "empty.db"
    engine = create_engine(f"sqlite:///{path}")
    Base.metadata.create_all(engine)
    engine.dispose()
    return path


@pytest.fixture(scope="session")
def databases() -> dict[str, Database]:
    """The databases of earlier tests by their URLs: they have compiled their statements, which takes half a test."""
    return {}


@pytest.fixture(params=["sqlite", "postgres"])
async def database(
    request: pytest.FixtureRequest, empty_sqlite: Path, databases: dict[str, Database]
) -> AsyncIterator[Database]:
    if request.param == "sqlite":
        url = f"sqlite+aiosqlite:///{fresh_copy(empty_sqlite)}"
    else:
        url = await postgres_with_tables(request.getfixturevalue("postgres_url"))
    if url not in databases:
        databases[url] = Database(url)
    opened = databases[url]
    yield opened
    await opened.close()


@pytest.fixture
def s3_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A folder of an empty bucket on a real S3 server."""
    with object_store(tmp_path / "s3") as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        S3FileSystem.clear_instance_cache()  # one of an earlier test leads to a server that is gone
        yield f"s3://{BUCKET}/blobs"


FLAGS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(15_000)
    yield page
    context.close()
