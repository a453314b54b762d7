"""Reads charged usage from the hourly projection: by bucket of time, by model, by whatever it is grouped by."""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, func, select

from tokenyard.core.ids import OrganizationId
from tokenyard.storage.database import Database
from tokenyard_billing.periods import HOUR_MS, period_end_ms, period_start_ms
from tokenyard_billing.tables import HourlyUsage

_COUNTS = ("requests", "prompt_tokens", "cached_tokens", "completion_tokens", "trained_tokens", "amount")


class UsageSum(msgspec.Struct, frozen=True):
    """Usage summed over one bucket and group; `amount` in nano-dollars. Ungrouped fields are None."""

    bucket_ms: int
    project: str | None
    key: str | None
    model: str | None
    price: str | None
    requests: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    trained_tokens: int
    amount: int


class UsageFilter(msgspec.Struct, frozen=True):
    """Which usage: `from_ms` inclusive, `to_ms` exclusive, whole hours; empty sequences mean all. `kind` None: any."""

    from_ms: int
    to_ms: int
    projects: Sequence[str] = ()
    keys: Sequence[str] = ()
    models: Sequence[str] = ()
    kind: str | None = None


class UsageStore:
    """An organization's charged usage."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def sums(
        self, organization: OrganizationId, wanted: UsageFilter, *, width_ms: int, group_by: Sequence[str] = ()
    ) -> list[UsageSum]:
        """Sum usage over UTC buckets of `width_ms` and the columns `group_by` (project, key, model, price)."""
        columns = {name: getattr(HourlyUsage, name) for name in ("project", "key", "model", "price")}
        grouped = [columns[name] for name in columns if name in group_by]
        bucket = (HourlyUsage.hour_ms // width_ms).label("bucket")
        query = (
            select(bucket, *grouped, *(func.sum(getattr(HourlyUsage, name)) for name in _COUNTS))
            .where(*_conditions(organization, wanted))
            .group_by(bucket, *grouped)
            .order_by(bucket, *grouped)
        )
        async with self._database.reading() as session:
            rows = (await session.execute(query)).all()
        return [_sum(row, [name for name in columns if name in group_by], width_ms) for row in rows]

    async def month(self, organization: OrganizationId, month: str) -> list[UsageSum]:
        """Sum a UTC month by model."""
        wanted = UsageFilter(period_start_ms(month, "UTC"), period_end_ms(month, "UTC"))
        # One bucket that no month can leave.
        return await self.sums(organization, wanted, width_ms=HOUR_MS * 24 * 365 * 1000, group_by=("model",))


def _conditions(organization: OrganizationId, wanted: UsageFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [
        HourlyUsage.organization == organization,
        HourlyUsage.hour_ms >= wanted.from_ms,
        HourlyUsage.hour_ms < wanted.to_ms,
    ]
    if wanted.projects:
        conditions.append(HourlyUsage.project.in_(wanted.projects))
    if wanted.keys:
        conditions.append(HourlyUsage.key.in_(wanted.keys))
    if wanted.models:
        conditions.append(HourlyUsage.model.in_(wanted.models))
    if wanted.kind is not None:
        conditions.append(HourlyUsage.kind == wanted.kind)
    return conditions


def _sum(row: Any, grouped: Sequence[str], width_ms: int) -> UsageSum:
    bucket, *rest = row
    groups = dict(zip(grouped, rest, strict=False))
    counts = (int(value) for value in rest[len(grouped) :])
    return UsageSum(
        int(bucket) * width_ms,
        groups.get("project"),
        groups.get("key"),
        groups.get("model"),
        groups.get("price"),
        *counts,
    )
