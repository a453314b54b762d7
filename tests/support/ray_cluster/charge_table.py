"""What clients got, beside what was charged for it: DESIGN's table of outcomes, one request a row."""

import contextlib
from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import func, select

from support.ray_cluster.gateway_load import Asked
from support.ray_cluster.served_platform import ServedPlatform, waited
from tokenyard_billing.tables import Charge, OpenRequest

SETTLED_LIMIT_S = 90.0


class Bill(NamedTuple):
    """How many requests are not charged as they ended, each in words; and how many were answered, cut, and failed."""

    wrong: list[str]
    answered: int
    cut: int
    failed: int

    @property
    def lost(self) -> int:
        """Requests without an answer of which nothing had come yet, and what was charged wrongly."""
        return self.failed + len(self.wrong)


async def bill(platform: ServedPlatform, asked: Sequence[Asked]) -> Bill:
    """Wait until the ledger has decided all that the tenant ever asked, which is `asked`, and compare."""
    await waited(lambda: _all_decided(platform, len(asked)), limit_s=SETTLED_LIMIT_S)
    async with platform.foundation.database.reading() as session:
        found = await session.scalars(select(Charge).where(Charge.organization == platform.organization))
        charges = {one.charge_key: one for one in found}
    wrong = [f"nobody asked for {key}" for key in charges.keys() - {one.request for one in asked}]
    wrong += [said for one in asked if (said := _difference(one, charges.get(one.request)))]
    wrong += await _broken_invariants(platform)
    return Bill(
        wrong,
        answered=sum(one.usage is not None for one in asked),
        cut=sum(one.cut for one in asked),
        failed=sum(one.failed for one in asked),
    )


async def _all_decided(platform: ServedPlatform, number: int) -> bool:
    async with platform.foundation.database.reading() as session:
        of_tenant = Charge.organization == platform.organization
        charges = await session.scalar(select(func.count()).select_from(Charge).where(of_tenant))
        undecided = await session.scalar(select(func.count()).select_from(OpenRequest))
    return (charges or 0) >= number and not undecided


async def _broken_invariants(platform: ServedPlatform) -> list[str]:
    """Return what `tokenyard reconcile` finds broken, once it had time to come right."""
    broken: list[str] = []

    async def agree() -> bool:
        found = await platform.admin("POST", "/admin/reconcile")
        broken[:] = [str(one) for one in found["differences"] if one["broken"]]
        return bool(found["ok"])

    with contextlib.suppress(TimeoutError):
        await waited(agree, limit_s=SETTLED_LIMIT_S)
    return broken


def _difference(one: Asked, charge: Charge | None) -> str | None:
    """Return what is wrong; there is one charge at most, because its key is the request."""
    if charge is None:
        return f"{one} is not charged"
    charged = charge.prompt_tokens, charge.completion_tokens
    if one.usage is not None and charged == one.usage and one.tokens == one.usage[1]:
        return None
    if one.cut and charge.completion_tokens == one.tokens:
        return None
    if one.failed and charge.amount == 0 and charged == (0, 0):
        return None
    return f"{one} is charged {charged} by {charge.rule}"
