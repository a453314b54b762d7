"""Reads charged usage from the hourly projection: by bucket of time, by model, by whatever it is grouped by."""

from collections.abc import Collection, Sequence

import msgspec
from sqlalchemy import ColumnElement, func, null, select

from tokenyard.core.ids import OrganizationId
from tokenyard.storage.database import Database
from tokenyard_billing.periods import TIME_ZONE, period_end_ms, period_start_ms
from tokenyard_billing.tables import COUNTS, HourlyUsage

_GROUPS = ("organization", "project", "key", "model", "price", "end_user")
_SUMMED = ("requests", *COUNTS, "amount")


class UsageSum(msgspec.Struct, frozen=True):
    """Usage summed over one bucket and group; `amount` in nano-dollars. Ungrouped fields are None; `end_user` is empty
    where requests named none, `project` and `key` where it is of none.
    """

    bucket_ms: int
    organization: str | None
    project: str | None
    key: str | None
    model: str | None
    price: str | None
    end_user: str | None
    requests: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    trained_tokens: int
    hosted_hours: int
    pinned_hours: int
    stored_months: int
    fees: int
    amount: int


class UsageFilter(msgspec.Struct, frozen=True):
    """Which usage: `from_ms` inclusive, `to_ms` exclusive, whole hours; empty sequences mean all. `kind` None: any."""

    from_ms: int
    to_ms: int
    projects: Sequence[str] = ()
    keys: Sequence[str] = ()
    models: Sequence[str] = ()
    end_users: Sequence[str] = ()
    kind: str | None = None


class UsageStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def sums(
        self, organization: OrganizationId, wanted: UsageFilter, *, width_ms: int, group_by: Collection[str] = ()
    ) -> list[UsageSum]:
        """Sum usage over buckets of `width_ms` from `wanted.from_ms` on, and by what a `UsageSum` can be grouped by."""
        of = HourlyUsage.organization == organization
        return await load_sums(self._database, wanted, of, width_ms=width_ms, group_by=group_by)

    async def month(self, organization: OrganizationId, month: str) -> list[UsageSum]:
        """Sum a UTC month by model."""
        wanted = UsageFilter(period_start_ms(month, TIME_ZONE), period_end_ms(month, TIME_ZONE))
        return await self.sums(organization, wanted, width_ms=wanted.to_ms - wanted.from_ms, group_by=("model",))


async def load_sums(
    database: Database,
    wanted: UsageFilter,
    *conditions: ColumnElement[bool],
    width_ms: int,
    group_by: Collection[str],
    limit: int | None = None,
) -> list[UsageSum]:
    """Sum usage where `conditions` hold; by bucket, then by group; `limit` bounds the sums, not the buckets."""
    bucket = ((HourlyUsage.hour_ms - wanted.from_ms) // width_ms).label("bucket")
    grouped = {name: getattr(HourlyUsage, name) for name in _GROUPS if name in group_by}
    query = (
        select(
            bucket,
            *(grouped.get(name, null()) for name in _GROUPS),
            *(func.sum(getattr(HourlyUsage, name)) for name in _SUMMED),
        )
        .where(HourlyUsage.hour_ms >= wanted.from_ms, HourlyUsage.hour_ms < wanted.to_ms, *conditions)
        .group_by(bucket, *grouped.values())
        .order_by(bucket, *grouped.values())
        .limit(limit)
    )
    for column, values in (
        (HourlyUsage.project, wanted.projects),
        (HourlyUsage.key, wanted.keys),
        (HourlyUsage.model, wanted.models),
        (HourlyUsage.end_user, wanted.end_users),
    ):
        if values:
            query = query.where(column.in_(values))
    if wanted.kind is not None:
        query = query.where(HourlyUsage.kind == wanted.kind)
    async with database.reading() as session:
        rows = (await session.execute(query)).all()
    return [
        UsageSum(wanted.from_ms + int(index) * width_ms, *rest[: len(_GROUPS)], *map(int, rest[len(_GROUPS) :]))
        for index, *rest in rows
    ]
