"""How what an organization uses is taxed: its profiles, and the rates that they name."""

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import Millionths
from tokenyard_billing.tax_tables import TaxProfileChange, TaxRate
from tokenyard_billing.taxes.amounts import UNTAXED, LineTax

Exemption = Literal["none", "exempt", "reverse_charge"]
"""Reverse charge: the organization owes the tax to its own state, and the invoice says so."""


class TaxProfile(msgspec.Struct, frozen=True):
    """Where an organization pays tax (nowhere: empty), or why it pays none."""

    jurisdiction: str = ""
    exemption: Exemption = "none"
    reason: str = ""


NOWHERE = TaxProfile()


class TaxTerms(msgspec.Struct, frozen=True):
    """`profiles` are pairs of the first period of one, and it, in order. `rates` are in the order of their dates."""

    profiles: Sequence[tuple[str, TaxProfile]] = ()
    rates: Mapping[str, Sequence[tuple[int, LineTax]]] = {}

    def profile(self, period: str) -> TaxProfile:
        return next((profile for since, profile in reversed(self.profiles) if since <= period), NOWHERE)

    def tax(self, period: str, end_ms: int) -> LineTax:
        """Return how usage of `period`, before `end_ms`, is taxed: as it was in the period's last millisecond."""
        profile = self.profile(period)
        if profile.exemption != "none":
            return UNTAXED
        for name in covering(profile.jurisdiction):
            for from_ms, how in reversed(self.rates.get(name, ())):
                if from_ms < end_ms:
                    return how
        return UNTAXED


def covering(jurisdiction: str) -> tuple[str, ...]:
    """Return whose rates hold in a jurisdiction, the nearest first: of US-CA its own, then those of US."""
    country = jurisdiction.partition("-")[0]
    return (jurisdiction,) if country == jurisdiction else (jurisdiction, country)


async def load_tax_terms(session: AsyncSession, organization: OrganizationId) -> TaxTerms:
    changes = select(TaxProfileChange).where(TaxProfileChange.organization == organization)
    profiles = [
        (one.since_period, msgspec.convert(one, TaxProfile, from_attributes=True))
        for one in await session.scalars(changes.order_by(TaxProfileChange.since_period))
    ]
    names = {name for _, profile in profiles for name in covering(profile.jurisdiction) if name}
    if not names:
        return TaxTerms(profiles)
    rates: dict[str, list[tuple[int, LineTax]]] = {}
    query = select(TaxRate).where(TaxRate.jurisdiction.in_(names)).order_by(TaxRate.effective_from_ms)
    for one in await session.scalars(query):
        how = LineTax(one.name, Millionths(one.rate), one.inclusive)
        rates.setdefault(one.jurisdiction, []).append((one.effective_from_ms, how))
    return TaxTerms(profiles, rates)
