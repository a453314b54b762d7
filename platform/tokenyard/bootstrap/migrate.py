"""`python -m tokenyard.bootstrap.migrate`: brings the configured database to the newest schema, with rate cards and
model files."""

import asyncio
import sys

from tokenyard.bootstrap.tables import import_all_tables
from tokenyard.catalog.base_models.operator_store import IMPORTER, ModelFileOperatorStore, read_files
from tokenyard.core.clock import SystemClock
from tokenyard.core.models import InvalidModelSpec
from tokenyard.settings import Settings
from tokenyard.storage.database import Database
from tokenyard.storage.migrate import upgrade
from tokenyard.tenancy.store import record
from tokenyard_billing.pricing.publishing import import_rate_cards
from tokenyard_billing.pricing.rate_cards import InvalidRateCard


def bring_up_to_date(settings: Settings) -> None:
    """Apply the revisions that are missing, import new rate cards, and put the model files of `models_dir` in force.

    Call it without a running event loop.

    Raises:
        InvalidRateCard: a card of `prices_dir` cannot be used, or one that was used is missing; nothing was imported.
        InvalidModelSpec: the file of a served model is missing or wrong; the set before it stays in force.
    """
    upgrade(settings.effective_database_url)
    asyncio.run(_import(settings))


async def _import(settings: Settings) -> None:
    import_all_tables()
    database = Database(settings.effective_database_url)
    try:
        clock = SystemClock()
        await import_rate_cards(database, settings.prices_dir, clock.now_ms())
        files = ModelFileOperatorStore(database, clock, record, settings.effective_models_path)
        # The outbox carries it to processes that run already.
        await files.publish(read_files(settings.models, settings.models_dir), actor=IMPORTER)
    finally:
        await database.close()


def main() -> None:
    try:
        bring_up_to_date(Settings())
    except (InvalidRateCard, InvalidModelSpec) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
