"""Books of whoever pays tax, in whole cents."""

from typing import Any

from redis.asyncio import Redis

from support.billing.invoice_books import InvoiceBooks
from support.billing.stand import ACME, CENTS, MARCH_MS, balance, rows
from tokenyard.core.ids import ApiKeyId, OrganizationId
from tokenyard.core.money import rate_from_percent
from tokenyard.storage.database import Database
from tokenyard.tenancy.store import record
from tokenyard_billing.invoice_tables import InvoiceLine
from tokenyard_billing.periods import DAY_MS
from tokenyard_billing.taxes.amounts import LineTax
from tokenyard_billing.taxes.operator_store import TaxRateOperatorStore
from tokenyard_billing.taxes.profiles import DatedTaxProfile, TaxProfiles
from tokenyard_billing.taxes.terms import Exemption, TaxProfile

OPERATOR = ApiKeyId("key_operator")
APRIL_MS = MARCH_MS + 31 * DAY_MS
MAY_MS = APRIL_MS + 30 * DAY_MS
DOLLAR = 10**9


class TaxBooks(InvoiceBooks):
    """Rates are of 2026-01-01, if it is not said otherwise."""

    def __init__(self, database: Database, redis: Redis) -> None:
        super().__init__(database, redis, CENTS)
        self.rates = TaxRateOperatorStore(database, record, self.clock)
        self.profiles = TaxProfiles(database, record, self.clock)
        self.settlements = self.settling()

    async def publish(
        self,
        jurisdiction: str,
        percent: str,
        *,
        inclusive: bool = False,
        from_ms: int = 1_767_225_600_000,
    ) -> str:
        how = LineTax("VAT", rate_from_percent(percent), inclusive)
        return (await self.rates.publish(jurisdiction, how, from_ms, actor=OPERATOR)).id

    async def live_in(
        self,
        jurisdiction: str,
        exemption: Exemption = "none",
        reason: str = "",
        organization: OrganizationId = ACME,
    ) -> DatedTaxProfile:
        return await self.profiles.change(organization, TaxProfile(jurisdiction, exemption, reason), actor=OPERATOR)

    def at(self, at_ms: int) -> None:
        self.clock.advance(at_ms / 1000 - self.clock())

    async def rows(self, table: Any) -> list[Any]:
        return await rows(self.database, table)

    async def lines(self, invoice: str) -> list[InvoiceLine]:
        found = [one for one in await rows(self.database, InvoiceLine) if one.invoice == invoice]
        return sorted(found, key=lambda one: int(one.number))

    async def accounts(self, *names: str) -> dict[str, int]:
        return {name: await balance(self.database, ACME, name) for name in names}

    async def amounts(self, period: str) -> dict[str, Any]:
        """Return what adds up to what is due of an invoice."""
        found = await self.invoice(period)
        names = ("total", "credit_applied", "tax", "tax_included", "rounding", "amount_due")
        return {name: getattr(found, name) for name in names}
