"""The Alembic history makes exactly the tables that the code declares, on both databases."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, column, insert, select, table, text
from sqlalchemy.orm import selectinload

from support.fakes.clock import FrozenClock
from support.fakes.rate_cards import SHIPPED, SHIPPED_CARDS, stated, write_file
from support.servers.postgres import empty_postgres
from tokenyard.bootstrap.migrate import bring_up_to_date
from tokenyard.bootstrap.tables import import_all_tables
from tokenyard.catalog.aliases.store import AliasStore
from tokenyard.catalog.views import AliasRevisionView, AliasView
from tokenyard.core.clock import SystemClock
from tokenyard.core.ids import ApiKeyId, OrganizationId
from tokenyard.core.money import LIST_PRICE, PRICE_LEAD_MS, Multiplier, PriceStep
from tokenyard.core.principal import Principal
from tokenyard.core.redis_keys import bucket_of
from tokenyard.settings import Settings
from tokenyard.storage.database import Base, Database
from tokenyard.storage.migrate import alembic_config, upgrade
from tokenyard.storage.outage import DatabaseDown
from tokenyard.storage.time_limits import TimeLimits
from tokenyard.tenancy.operator_store import TenancyOperatorStore
from tokenyard.tenancy.plans.operator_store import PlanOperatorStore
from tokenyard.tenancy.plans.views import PlanChanges
from tokenyard.tenancy.store import TenancyStore, record
from tokenyard_billing.invoice_tables import BillingPeriod, Invoice, StaleInvoice
from tokenyard_billing.pricing.price_book import PriceBook
from tokenyard_billing.pricing.rate_cards import InvalidRateCard, RateCard
from tokenyard_billing.tables import BucketLease, Charge, OpenRequest


@pytest.fixture(params=["sqlite", "postgres"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'migrated.db'}"
    return asyncio.run(empty_postgres(request.getfixturevalue("postgres_url")))


def test_the_history_ends_where_the_code_is(empty_database_url: str) -> None:
    import_all_tables()
    upgrade(empty_database_url)
    upgrade(empty_database_url)  # a second time changes nothing

    def differences(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), Base.metadata))

    async def compare() -> list[object]:
        database = Database(empty_database_url)
        async with database.engine.connect() as connection:
            found = await connection.run_sync(differences)
        await database.close()
        return found

    assert asyncio.run(compare()) == []


def test_rate_cards_of_which_only_a_checksum_was_kept_are_filled_from_their_files(
    empty_database_url: str, tmp_path: Path
) -> None:
    [card] = SHIPPED_CARDS
    used = f"INSERT INTO billing_rate_cards VALUES ('{card.version}', '{card.sha256}', 1)"
    prices = tmp_path / "prices"
    prices.mkdir()
    settings = Settings(database_url=empty_database_url, prices_dir=prices)
    command.upgrade(alembic_config(empty_database_url), "0002")

    async def write() -> None:
        database = Database(empty_database_url)
        async with database.transaction() as session:
            await session.execute(text(used))
        await database.close()

    async def read() -> tuple[RateCard, ...]:
        database = Database(empty_database_url)
        async with PriceBook(database) as book:
            await database.close()
            return book.prices.cards

    asyncio.run(write())
    write_file(prices, stated("other", card.effective_from_ms + 1))
    with pytest.raises(InvalidRateCard, match=f"rate card {card.version} was used"):
        bring_up_to_date(settings)
    assert asyncio.run(read()) == ()
    bring_up_to_date(settings.model_copy(update={"prices_dir": SHIPPED}))
    bring_up_to_date(settings.model_copy(update={"prices_dir": tmp_path}))  # the files are needed no more
    assert asyncio.run(read()) == (card,)


def test_an_organization_with_projects_and_keys_lives_on(empty_database_url: str) -> None:
    command.upgrade(alembic_config(empty_database_url), "0001")
    rows = (
        """INSERT INTO tenancy_organizations (id, slug, name, default_project, weight, timezone, limits, created)
           VALUES ('org_1', 'acme', 'Acme', 'proj_1', 3, 'UTC', '{"concurrency": 2}', 1)""",
        """INSERT INTO tenancy_projects (id, organization, name, limits, created)
           VALUES ('proj_1', 'org_1', 'Default', '{}', 1)""",
        """INSERT INTO tenancy_api_keys (id, organization, project, role, name, last4, hash, pepper_version, version,
                                         limits, created, changed_ms)
           VALUES ('key_1', 'org_1', 'proj_1', 'tenant', 'First', 'abcd', 'hash', 1, 7, '{}', 1, 1000)""",
    )

    async def write() -> None:
        database = Database(empty_database_url)
        async with database.transaction() as session:
            for row in rows:
                await session.execute(text(row))
        await database.close()

    async def read() -> tuple[str, list[str]]:
        database = Database(empty_database_url)
        store = TenancyOperatorStore(database, SystemClock())
        found = await store.organization("acme")
        projects = await TenancyStore(database, SystemClock()).projects(found.id, after=None, limit=10)
        credential = await store.credential(["hash"])
        assert credential is not None
        assert isinstance(credential.holder, Principal)
        assert (credential.holder.key, credential.holder.revision) == ("key_1", 1)
        await database.close()
        return f"{found.name} {found.weight} {found.limits.concurrency}", [project.id for project in projects]

    asyncio.run(write())
    upgrade(empty_database_url)
    assert asyncio.run(read()) == ("Acme 3 2", ["proj_1"])


def test_an_organization_on_a_plan_has_always_been_on_it(empty_database_url: str) -> None:
    command.upgrade(alembic_config(empty_database_url), "0006")
    rows = (
        "INSERT INTO tenancy_plans (id, name, weight, limits, created) VALUES ('plan_1', 'pro', 2, '{}', 1)",
        *(
            f"""INSERT INTO tenancy_organizations (id, slug, name, default_project, plan, limits, revision, created)
                VALUES ('org_{number}', 'slug-{number}', 'Name', 'proj_{number}', {plan}, '{{}}', 1, 1)"""
            for number, plan in enumerate(("'plan_1'", "NULL"))
        ),
    )

    async def write() -> None:
        database = Database(empty_database_url)
        async with database.transaction() as session:
            for row in rows:
                await session.execute(text(row))
        await database.close()

    async def changed() -> tuple[int, list[Sequence[PriceStep]]]:
        database, clock = Database(empty_database_url), FrozenClock()
        rules = PlanChanges(price_multiplier="0.5").rules()
        plans = PlanOperatorStore(database, clock)
        await plans.change("pro", name=None, limits=None, rules=rules, actor=ApiKeyId("key_1"))
        async with database.reading() as session:
            owners = [OrganizationId(f"org_{number}") for number in range(2)]
            steps = await TenancyOperatorStore(database, clock).price_steps(session, owners)
        await database.close()
        return clock.now_ms() + PRICE_LEAD_MS, [steps[owner] for owner in owners]

    asyncio.run(write())
    upgrade(empty_database_url)
    begins_ms, found = asyncio.run(changed())
    assert found == [(PriceStep(0, LIST_PRICE), PriceStep(begins_ms, Multiplier(5_000))), ()]


def test_aliases_and_adapters_that_are_there_have_a_history_and_an_end(empty_database_url: str) -> None:
    command.upgrade(alembic_config(empty_database_url), "0008")
    adapters = ("live", "NULL", "NULL"), ("retired", "7", "NULL"), ("retired", "7", "8")
    rows = (
        *(
            f"""INSERT INTO catalog_adapters (id, organization, project, job, base, name, path, digest, state,
                    created_ms, retired_ms, files_deleted_ms)
                VALUES ('{number}', 'org_1', 'p', 'j', 'm', 'ft:{number}', 'x', 'y', '{state}', 1, {ended}, {gone})"""
            for number, (state, ended, gone) in enumerate(adapters)
        ),
        """INSERT INTO catalog_aliases (organization, alias, model, adapter, created_ms)
           VALUES ('org_1', 'bot', 'ft:0', '0', 5000)""",
    )

    async def write() -> None:
        database = Database(empty_database_url)
        async with database.transaction() as session:
            for row in rows:
                await session.execute(text(row))
        await database.close()

    async def read() -> tuple[list[AliasRevisionView], AliasView, Sequence[Sequence[object]]]:
        database = Database(empty_database_url)
        aliases, one = AliasStore(database, FrozenClock(), record), OrganizationId("org_1")
        query = "SELECT state, draining_ms, retired_ms FROM catalog_adapters ORDER BY id"
        async with database.reading() as session:
            states = [tuple(row) for row in await session.execute(text(query))]
        found = list(await aliases.revisions(one, "bot")), await aliases.get(one, "bot"), states
        await database.close()
        return found

    asyncio.run(write())
    upgrade(empty_database_url)
    history, alias, states = asyncio.run(read())
    assert [(one.revision, one.model, one.created_at, one.api_key_id) for one in history] == [(1, "ft:0", 5, None)]
    assert (alias.revision, alias.changed_at) == (1, 5)
    assert states == [("live", None, None), ("draining", 7, None), ("retired", None, 7)]


def test_a_migration_gives_up_before_it_holds_up_everybody(empty_database_url: str) -> None:
    command.upgrade(alembic_config(empty_database_url), "0001")

    async def hold(statement: str) -> None:
        database = Database(empty_database_url)
        async with database.transaction() as session:
            await session.execute(text(statement))
            with pytest.raises(DatabaseDown):
                await asyncio.to_thread(upgrade, empty_database_url, TimeLimits(statement_s=None, lock_s=0.2))
            await session.execute(text(statement))
        await database.close()

    asyncio.run(hold("SELECT count(*) FROM tenancy_organizations"))
    upgrade(empty_database_url)


def test_invoices_that_were_drafted_are_drawn_again(empty_database_url: str) -> None:
    command.upgrade(alembic_config(empty_database_url), "0002")
    words = {"organization": "org_acme", "period": "2026-03", "time_zone": "UTC", "budgets": "[]"}
    empty = ("project", "key", "kind", "rule", "endpoint", "model", "base_model", "price")
    numbers = ("prompt_tokens", "cached_tokens", "completion_tokens", "trained_tokens", "amount")
    times = ("admitted_at_ms", "charged_at_ms")
    charge = words | dict.fromkeys(empty, "") | dict.fromkeys((*numbers, *times), 0)

    async def write() -> None:
        database = Database(empty_database_url)
        async with database.transaction() as session:
            charges = table("billing_charges", *map(column, ("charge_key", *charge)))
            await session.execute(insert(charges), [charge | {"charge_key": f"req_{n}"} for n in range(2)])
        await database.close()

    async def read() -> list[tuple[str, str, int, int, int]]:
        database = Database(empty_database_url)
        async with database.reading() as session:
            found = [
                (row.organization, row.period, row.bucket, row.marks, row.retry_at_ms)
                for row in await session.scalars(select(StaleInvoice))
            ]
        await database.close()
        return found

    asyncio.run(write())
    upgrade(empty_database_url)
    assert asyncio.run(read()) == [("org_acme", "2026-03", bucket_of(OrganizationId("org_acme")), 1, 0)]


def test_periods_before_are_open_and_drafts_stay_drafts(empty_database_url: str) -> None:
    command.upgrade(alembic_config(empty_database_url), "0020")
    charge = """INSERT INTO billing_charges (charge_key, organization, project, key, kind, rule, endpoint, end_user,
                    model, base_model, service_tier, price, prompt_tokens, cached_tokens, completion_tokens,
                    trained_tokens, hosted_hours, pinned_hours, stored_months, amount, budgets, admitted_at_ms,
                    charged_at_ms, period, time_zone)
                VALUES ('req_1', 'org_acme', '', '', '', '', '', '', '', '', 'default', '', 0, 0, 0, 0, 0, 0, 0, 5,
                    '[]', 1772500000000, 1772500000000, '2026-03', 'UTC')"""
    invoice = """INSERT INTO billing_invoices (id, organization, period, time_zone, state, total, credit_applied,
                     amount_due, drafted_at_ms)
                 VALUES ('inv_1', 'org_acme', '2026-03', 'UTC', 'draft', 5, 0, 5, 1772500000000)"""
    line = """INSERT INTO billing_invoice_lines (invoice, number, model, price, kind, quantity, rate, amount)
              VALUES ('inv_1', 0, '', '', 'input', 5, 1, 5)"""
    waiting = """INSERT INTO billing_open_requests (request, organization, bucket, looked_at_ms)
                 VALUES ('req_2', 'org_acme', 1, 1)"""
    lease = """INSERT INTO billing_bucket_leases (bucket, holder, lease_until_ms, watermark_ms)
               VALUES (1, 'worker', 1, 1772500000000)"""

    async def write() -> None:
        database = Database(empty_database_url)
        async with database.transaction() as session:
            for statement in (charge, invoice, line, waiting, lease):
                await session.execute(text(statement))
        await database.close()

    async def read() -> tuple[Charge, BillingPeriod, Invoice, OpenRequest, BucketLease]:
        database = Database(empty_database_url)
        async with database.reading() as session:
            whole = selectinload(Invoice.lines), selectinload(Invoice.settlement)
            found = (
                (await session.scalars(select(Charge))).one(),
                (await session.scalars(select(BillingPeriod))).one(),
                (await session.scalars(select(Invoice).options(*whole))).one(),
                (await session.scalars(select(OpenRequest))).one(),
                (await session.scalars(select(BucketLease))).one(),
            )
        await database.close()
        return found

    asyncio.run(write())
    upgrade(empty_database_url)
    charged, period, drafted, request, leased = asyncio.run(read())
    assert (charged.period, charged.billed_in) == ("2026-03", "2026-03")
    march = (1_772_323_200_000, 1_775_001_600_000)
    assert (period.organization, period.period, period.closed_at_ms) == ("org_acme", "2026-03", None)
    assert (period.start_ms, period.end_ms) == (drafted.period_start_ms, drafted.period_end_ms) == march
    assert period.bucket == bucket_of(OrganizationId("org_acme"))
    assert (drafted.state, drafted.number, drafted.settlement) == ("draft", None, None)
    assert [one.usage_period for one in drafted.lines] == ["2026-03"]
    assert request.admitted_at_ms == 0, "no period closes before it is decided"
    assert leased.watermark_ms == 0, "no period closes by a watermark that passed what was put off"


def test_credit_of_invoices_before_pays_for_their_lines_in_order(empty_database_url: str) -> None:
    command.upgrade(alembic_config(empty_database_url), "0021")
    invoice = """INSERT INTO billing_invoices (id, organization, period, time_zone, state, total, credit_applied,
                     amount_due, drafted_at_ms)
                 VALUES ('inv_1', 'org_acme', '2026-03', 'UTC', 'draft', 22, 12, 10, 1772500000000)"""
    line = """INSERT INTO billing_invoice_lines (invoice, number, model, price, kind, quantity, rate, amount)
              VALUES ('inv_1', :number, '', '', 'input', 1, :amount, :amount)"""

    async def write() -> None:
        database = Database(empty_database_url)
        async with database.transaction() as session:
            await session.execute(text(invoice))
            for number, amount in enumerate((5, 0, 10, 7)):
                await session.execute(text(line), {"number": number, "amount": amount})
        await database.close()

    async def read() -> Invoice:
        database = Database(empty_database_url)
        async with database.reading() as session:
            whole = selectinload(Invoice.lines), selectinload(Invoice.settlement)
            found = (await session.scalars(select(Invoice).options(*whole))).one()
        await database.close()
        return found

    asyncio.run(write())
    upgrade(empty_database_url)
    found = asyncio.run(read())
    assert [one.credit_applied for one in found.lines] == [5, 0, 7, 0]
    assert {(one.tax, one.tax_rate, one.tax_inclusive) for one in found.lines} == {(0, 0, False)}
    assert (found.tax, found.tax_included, found.rounding) == (0, 0, 0)
    assert (found.tax_jurisdiction, found.tax_exemption, found.tax_reason) == ("", "none", "")


def test_whoever_is_archived_is_asked_no_fee(empty_database_url: str) -> None:
    command.upgrade(alembic_config(empty_database_url), "0024")
    organization = """INSERT INTO tenancy_organizations (id, slug, name, default_project, plan, prices_from_ms, limits,
                          revision, created, archived)
                      VALUES ('org_{0}', '{0}', '', 'proj_{0}', 'plan_1', 0, '{{}}', 1, 1, {1})"""
    plan = """INSERT INTO tenancy_plans (id, name, weight, limits, price_multiplier, service_tiers, prices_from_ms,
                  training, pinned_adapters, created)
              VALUES ('plan_1', 'team', 1, '{}', '1', '{}', 0, '{}', 0, 1)"""
    move = """INSERT INTO tenancy_organization_plans (organization, from_ms, plan, published_at_ms)
              VALUES ('org_{}', 7, 'plan_1', 0)"""

    async def write() -> None:
        database = Database(empty_database_url)
        async with database.transaction() as session:
            for statement in (plan, organization.format("a", "NULL"), organization.format("b", "5")):
                await session.execute(text(statement))
            for owner in "ab":
                await session.execute(text(move.format(owner)))
        await database.close()

    async def read() -> list[tuple[object, ...]]:
        database = Database(empty_database_url)
        query = "SELECT organization, from_ms, plan, archived FROM tenancy_organization_plans ORDER BY 1, 2"
        async with database.reading() as session:
            found = [(*row[:3], bool(row[3])) for row in await session.execute(text(query))]
        await database.close()
        return found

    asyncio.run(write())
    upgrade(empty_database_url)
    kept = [("org_a", 7, "plan_1", False), ("org_b", 7, "plan_1", False), ("org_b", 8, "plan_1", True)]
    assert asyncio.run(read()) == kept
