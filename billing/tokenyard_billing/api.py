"""Puts billing's routes together for the control plane."""

from collections.abc import Sequence
from pathlib import Path

from fastapi import APIRouter
from redis.asyncio import Redis

from tokenyard.core.clock import Clock
from tokenyard.storage.database import AuditLog, Database, EventLog
from tokenyard.storage.transactional_outbox import TransactionalOutbox
from tokenyard_billing.alerts import operator_routes as alerts_for_operators
from tokenyard_billing.alerts import tenant_routes as alerts_for_tenants
from tokenyard_billing.alerts.store import BudgetAlertStore
from tokenyard_billing.corrections import operator_routes as corrections_for_operators
from tokenyard_billing.corrections import tenant_routes as credit_notes_for_tenants
from tokenyard_billing.corrections.operator_store import CorrectionOperatorStore, CreditNoteOperatorStore
from tokenyard_billing.corrections.store import CreditNoteStore
from tokenyard_billing.documents import operator_routes as documents_for_operators
from tokenyard_billing.documents import tenant_routes as documents_for_tenants
from tokenyard_billing.documents.files import BillFiles
from tokenyard_billing.documents.operator_store import BillOperatorStore
from tokenyard_billing.documents.store import BillStore
from tokenyard_billing.dunning import operator_routes as dunning_for_operators
from tokenyard_billing.dunning.operator_store import DunningOperatorStore
from tokenyard_billing.invoice_proofs import operator_routes as invoice_proofs_for_operators
from tokenyard_billing.invoice_proofs import tenant_routes as invoice_proofs_for_tenants
from tokenyard_billing.invoice_proofs.files import ProofFiles
from tokenyard_billing.invoicing import operator_routes as invoices_for_operators
from tokenyard_billing.invoicing import period_routes
from tokenyard_billing.invoicing import tenant_routes as invoices_for_tenants
from tokenyard_billing.invoicing.operator_store import InvoiceOperatorStore
from tokenyard_billing.invoicing.settling import InvoiceSettlements
from tokenyard_billing.invoicing.store import InvoiceStore
from tokenyard_billing.invoicing.time_zones import BillingTimeZones
from tokenyard_billing.ledger import operator_routes as books_for_operators
from tokenyard_billing.ledger.operator_store import BooksOperatorStore
from tokenyard_billing.parties import operator_routes as parties_for_operators
from tokenyard_billing.parties import tenant_routes as parties_for_tenants
from tokenyard_billing.parties.operator_store import IssuerOperatorStore
from tokenyard_billing.parties.store import BillingDetailsStore
from tokenyard_billing.payments import operator_routes as payments_for_operators
from tokenyard_billing.payments import tenant_routes as payments_for_tenants
from tokenyard_billing.payments import webhook_routes
from tokenyard_billing.payments.methods import PaymentMethods
from tokenyard_billing.payments.operator_store import PaymentOperatorStore
from tokenyard_billing.payments.ports import PaymentProvider
from tokenyard_billing.payments.store import PaymentStore
from tokenyard_billing.ports import Blocking, LiveBudgetReader, OrganizationLookup, UnfinishedJobs
from tokenyard_billing.pricing import operator_routes as prices_for_operators
from tokenyard_billing.pricing.operator_store import RateCardOperatorStore
from tokenyard_billing.pricing.prices import PriceList
from tokenyard_billing.proof import operator_routes as proof_for_operators
from tokenyard_billing.proof.operator_store import BillingOperatorStore
from tokenyard_billing.proof.reconcile import LedgerReconciler
from tokenyard_billing.sealing import operator_routes as seals_for_operators
from tokenyard_billing.sealing import tenant_routes as seals_for_tenants
from tokenyard_billing.sealing.operator_store import SealOperatorStore
from tokenyard_billing.sealing.store import SealReader
from tokenyard_billing.taxes import operator_routes as taxes_for_operators
from tokenyard_billing.taxes.operator_store import TaxRateOperatorStore
from tokenyard_billing.taxes.profiles import TaxProfiles
from tokenyard_billing.top_ups import operator_routes as top_ups_for_operators
from tokenyard_billing.top_ups import tenant_routes as top_ups_for_tenants
from tokenyard_billing.top_ups.automatic import AutomaticTopUps
from tokenyard_billing.top_ups.buying import TopUps
from tokenyard_billing.usage import operator_routes as usage_for_operators
from tokenyard_billing.usage import tenant_routes as usage_for_tenants
from tokenyard_billing.usage.operator_store import UsageOperatorStore
from tokenyard_billing.usage.store import UsageStore
from tokenyard_billing.wallets import operator_routes as wallets_for_operators
from tokenyard_billing.wallets import tenant_routes as wallets_for_tenants
from tokenyard_billing.wallets.operator_store import WalletOperatorStore
from tokenyard_billing.wallets.store import Wallet


def billing_routers(
    *,
    database: Database,
    redis: Redis,
    prices: PriceList,
    outbox: TransactionalOutbox,
    wallet: Wallet,
    find_organization: OrganizationLookup,
    live_budgets: LiveBudgetReader,
    jobs: UnfinishedJobs,
    audit: AuditLog,
    events: EventLog,
    clock: Clock,
    blocking: Blocking,
    provider: PaymentProvider | None,
    issuer: str,
    fonts_dir: Path | None = None,
) -> Sequence[APIRouter]:
    """Return them all.

    `issuer` is who issues the invoices, `fonts_dir` a folder of further fonts for documents; without a `provider`
    operators note all payments.
    """
    invoices = InvoiceStore(database)
    usage = UsageStore(database)
    alerts = BudgetAlertStore(database)
    settlements = InvoiceSettlements(
        database=database, audit=audit, events=events, clock=clock, blocking=blocking, outbox=outbox
    )
    details = BillingDetailsStore(database, audit, clock)
    files = BillFiles(fonts_dir)
    corrections = CorrectionOperatorStore(database, prices, audit, clock)
    reconciler = LedgerReconciler(database, redis, live_budgets, jobs, clock)
    methods = PaymentMethods(database, provider, audit, clock)
    automatic = AutomaticTopUps(database, audit, clock)
    payments = PaymentOperatorStore(database, clock)
    seals, proofs = SealReader(database), ProofFiles(database, prices)
    return (
        usage_for_tenants.router(usage, prices, clock),
        invoices_for_tenants.router(invoices, clock),
        credit_notes_for_tenants.router(CreditNoteStore(database)),
        wallets_for_tenants.router(wallet),
        alerts_for_tenants.router(alerts),
        usage_for_operators.router(find_organization, usage, UsageOperatorStore(database), clock),
        invoices_for_operators.router(find_organization, invoices, InvoiceOperatorStore(database), settlements, clock),
        period_routes.router(find_organization, invoices, BillingTimeZones(database, audit, clock), clock),
        corrections_for_operators.router(find_organization, corrections, CreditNoteOperatorStore(database)),
        taxes_for_operators.router(
            find_organization,
            TaxRateOperatorStore(database, audit, clock),
            TaxProfiles(database, audit, clock),
        ),
        books_for_operators.router(BooksOperatorStore(database)),
        alerts_for_operators.router(find_organization, alerts),
        wallets_for_operators.router(find_organization, wallet, WalletOperatorStore(database)),
        prices_for_operators.router(RateCardOperatorStore(database, outbox, clock)),
        parties_for_tenants.router(details),
        parties_for_operators.router(find_organization, details, IssuerOperatorStore(database, audit, clock, issuer)),
        documents_for_tenants.router(BillStore(database, issuer), files),
        documents_for_operators.router(BillOperatorStore(database, issuer), files),
        seals_for_tenants.router(seals),
        seals_for_operators.router(seals, SealOperatorStore(database)),
        invoice_proofs_for_tenants.router(proofs),
        invoice_proofs_for_operators.router(proofs),
        payments_for_tenants.router(PaymentStore(database), methods),
        payments_for_operators.router(find_organization, payments),
        top_ups_for_tenants.router(TopUps(database, methods, clock), automatic),
        top_ups_for_operators.router(find_organization, automatic),
        webhook_routes.router(provider, payments, clock),
        dunning_for_operators.router(find_organization, DunningOperatorStore(database, audit, clock, blocking, outbox)),
        proof_for_operators.router(BillingOperatorStore(database, redis), reconciler),
    )
