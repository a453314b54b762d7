"""Which charges a correction is of, and what a card would make of them."""

from collections.abc import Sequence

import msgspec
from sqlalchemy import ColumnElement, and_, case, exists, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import NanoDollars, Price
from tokenyard_billing.pricing.prices import PriceList, UnknownPrice
from tokenyard_billing.tables import Charge

VERSIONS = 20
"""So often a charge may be rated anew."""


class Scope(msgspec.Struct, frozen=True, omit_defaults=True):
    """The charges of an organization that meet all that is said.

    `request` is the id of a request, job or other use. `period` is the organization's own month of use. From
    `since_ms` until before `until_ms` it was admitted; both are unix milliseconds.
    """

    request: str | None = None
    period: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    model: str | None = None
    project: str | None = None
    key: str | None = None

    def charges(self, organization: OrganizationId, card: str | None) -> ColumnElement[bool]:
        """Return the condition that a charge is meant, is the one in force, and may be rated anew if it is to be."""
        wanted = [Charge.organization == organization, *_in_force()]
        if card is not None:
            wanted += [~Charge.charge_key.endswith(f"~{VERSIONS}"), Charge.fees == 0]  # no card has a plan's fee
        if self.request is not None:
            wanted.append(Charge.charge_key.in_(versions(self.request)))
        if self.since_ms is not None:
            wanted.append(Charge.admitted_at_ms >= self.since_ms)
        if self.until_ms is not None:
            wanted.append(Charge.admitted_at_ms < self.until_ms)
        for column in (Charge.period, Charge.model, Charge.project, Charge.key):
            if (value := getattr(self, column.key)) is not None:
                wanted.append(column == value)
        return and_(*wanted)


class Affected(msgspec.Struct, frozen=True):
    """The charges of one line of a bill: what they cost, and what of it a correction would take back and add."""

    billed_in: str
    usage_period: str
    model: str
    price: str
    charges: int
    amount: NanoDollars
    lowered: NanoDollars
    raised: NanoDollars


class Preview(msgspec.Struct, frozen=True):
    """What a correction would change, by the lines of bills; `closed_through` is the last period that is closed."""

    closed_through: str
    lines: Sequence[Affected]


async def affected(
    session: AsyncSession, organization: OrganizationId, scope: Scope, prices: PriceList, card: str | None
) -> list[Affected]:
    """Return what a correction would change, by the lines of bills; what it leaves as it is is not among them.

    Raises:
        UnknownPrice: the card has no price of something.
    """
    wanted = scope.charges(organization, card)
    difference: ColumnElement[int] = -Charge.amount
    if card is not None:
        used = (await session.scalars(select(Charge.price).where(wanted).distinct())).all()
        if not used:
            return []
        anew = {price: _on_card(prices, price, card) for price in used}
        difference = case({price: _cost(new) - Charge.amount for price, new in anew.items()}, value=Charge.price)
    line = Charge.billed_in, Charge.period, Charge.model, Charge.price
    lowered = func.sum(case((difference < 0, -difference), else_=0))
    raised = func.sum(case((difference > 0, difference), else_=0))
    query = (
        select(*line, func.count(), func.sum(Charge.amount), lowered, raised)
        .where(wanted, difference != 0)
        .group_by(*line)
        .order_by(*line)
    )
    return [
        Affected(billed_in, used_in, model, price, count, *(NanoDollars(int(amount)) for amount in amounts))
        for billed_in, used_in, model, price, count, *amounts in await session.execute(query)
    ]


def behind(at_ms: int, key: str) -> ColumnElement[bool]:
    """Return the condition that a charge comes after another one, in the order in which they are corrected."""
    return tuple_(Charge.admitted_at_ms, Charge.charge_key) > tuple_(at_ms, key)


def versions(key: str) -> list[str]:
    """Return the keys that the charge of a request, and what took its place, may have."""
    return [key, *(f"{key}~{version}" for version in range(1, VERSIONS + 1))]


def reversal_of(key: str) -> str:
    """Return the key of the charge that undoes `key`."""
    return f"{key}~reversed"


def restored_as(key: str, period: str) -> str:
    """Return the key of the charge that is what `period` had billed, before `key` cost more and was billed later."""
    return f"{key}~as~{period}"


def version_of(key: str) -> int:
    """Return how often a charge was rated anew."""
    return int(key.partition("~")[2] or 0)


def former_versions(key: str) -> list[str]:
    """Return the keys of the charges whose place `key` took, the newest first."""
    return versions(key.partition("~")[0])[: version_of(key)][::-1]


def next_version(key: str) -> str:
    """Return the key of the charge that takes the place of `key`."""
    return f"{key.partition('~')[0]}~{version_of(key) + 1}"


def _on_card(prices: PriceList, price: str, card: str) -> Price:
    if (anew := prices.on_card(price, card)) is None:
        raise UnknownPrice(f"the rate card {card} has no price in place of {price}")
    return anew


def _in_force() -> tuple[ColumnElement[bool], ...]:
    """A charge counts that undoes no other one, and that none undoes."""
    other = aliased(Charge)
    return Charge.reverses.is_(None), ~exists().where(other.reverses == Charge.charge_key)


def _cost(price: Price) -> ColumnElement[int]:
    """Return what a charge would cost, as `rated_lines` has it."""
    return (
        (Charge.prompt_tokens - Charge.cached_tokens) * price.input
        + Charge.cached_tokens * price.cached_input
        + Charge.completion_tokens * price.output
        + Charge.trained_tokens * price.training
        + Charge.hosted_hours * price.hosting
        + Charge.pinned_hours * price.pinned_hosting
        + Charge.stored_months * price.storage
    )
