"""`python -m tokenyard.bootstrap.migrate`: brings the configured database to the newest schema, with its rate cards."""

import asyncio
import sys

from tokenyard.bootstrap.tables import import_all_tables
from tokenyard.core.clock import SystemClock
from tokenyard.settings import Settings
from tokenyard.storage.database import Database
from tokenyard.storage.migrate import upgrade
from tokenyard_billing.pricing.publishing import import_rate_cards
from tokenyard_billing.pricing.rate_cards import InvalidRateCard


def bring_up_to_date(settings: Settings) -> None:
    """Apply the revisions that are missing and import new rate cards. Call it without a running event loop.

    Raises:
        InvalidRateCard: a card of `prices_dir` cannot be used, or one that was used is missing; nothing was imported.
    """
    upgrade(settings.effective_database_url)
    asyncio.run(_import(settings))


async def _import(settings: Settings) -> None:
    import_all_tables()
    database = Database(settings.effective_database_url)
    try:
        await import_rate_cards(database, settings.prices_dir, SystemClock().now_ms())
    finally:
        await database.close()


def main() -> None:
    try:
        bring_up_to_date(Settings())
    except InvalidRateCard as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
