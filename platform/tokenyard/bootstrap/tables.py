"""Makes every slice's tables known to SQLAlchemy: for migrations and tests."""

import importlib

_MODULES = (
    "tokenyard.storage.tables",
    "tokenyard.tenancy.tables",
    "tokenyard.catalog.tables",
    "tokenyard.files.tables",
    "tokenyard.finetune.tables",
    "tokenyard.responses.tables",
    "tokenyard.evals.tables",
    "tokenyard.webhooks.tables",
    "tokenyard_billing.tables",
    "tokenyard_billing.invoice_tables",
    "tokenyard_billing.tax_tables",
    "tokenyard_billing.parties.tables",
    "tokenyard_billing.payments.tables",
    "tokenyard_billing.top_ups.tables",
    "tokenyard_billing.dunning.tables",
    "tokenyard_billing.sealing.tables",
)


def import_all_tables() -> None:
    for module in _MODULES:
        importlib.import_module(module)
