"""Adapters across organizations: for worker loops and operator routes only."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from sqlalchemy import Select, exists, func, select

from tokenyard.catalog.changes import WORKER
from tokenyard.catalog.store import Adapter, note_state
from tokenyard.catalog.tables import AdapterRow, AdapterState, AliasRow
from tokenyard.catalog.views import AdapterView
from tokenyard.core.clock import Clock
from tokenyard.core.errors import NotFound
from tokenyard.core.ids import AdapterId, OrganizationId
from tokenyard.storage.database import AuditLog, Database
from tokenyard.storage.paging import part_of_list

ORGANIZATIONS_AT_ONCE = 500


class CatalogOperatorStore:
    """What the loops that place, unload and delete adapters look for."""

    def __init__(self, database: Database, clock: Clock, audit: AuditLog) -> None:
        self._database = database
        self._clock = clock
        self._audit = audit

    async def newest_live(self, base: str, limit: int) -> list[Adapter]:
        """Return the adapters of a base model that went live last, newest first."""
        live = select(AdapterRow).where(AdapterRow.base == base, AdapterRow.state == AdapterState.LIVE)
        return await self._adapters(live.order_by(AdapterRow.live_ms.desc(), AdapterRow.id).limit(limit))

    async def live_named(self, base: str, names: Iterable[str]) -> list[Adapter]:
        """Return those of `names` that are live adapters of a base model."""
        live = select(AdapterRow).where(AdapterRow.base == base, AdapterRow.state == AdapterState.LIVE)
        return await self._adapters(live.where(AdapterRow.name.in_(list(names))))

    async def to_be_pinned(self, places: Mapping[OrganizationId, int]) -> dict[str, list[str]]:
        """Return which adapters are to stay in memory, by base model, the most important first.

        `places` says how many each organization has: first for those that its aliases name, then for models that went
        live last, then for checkpoints. The first one of every organization comes before anybody's second.
        """
        found: list[tuple[int, int, str, str]] = []
        owners = sorted(places)
        async with self._database.reading() as session:
            for start in range(0, len(owners), ORGANIZATIONS_AT_ONCE):
                part = owners[start : start + ORGANIZATIONS_AT_ONCE]
                ranked = _ranked(part, max(places.values()))
                for owner, base, name, rank, live_ms in await session.execute(ranked):
                    if rank <= places[OrganizationId(owner)]:
                        found.append((rank, live_ms, name, base))
        pinned: dict[str, list[str]] = {}
        for _, _, name, base in sorted(found):
            pinned.setdefault(base, []).append(name)
        return pinned

    async def may_be_resident(self, names: Iterable[str]) -> set[str]:
        """Return those of `names` that replicas may hold: live ones, and those being checked."""
        query = select(AdapterRow.name).where(
            AdapterRow.name.in_(list(names)), AdapterRow.state.in_((AdapterState.LIVE, AdapterState.CHECKING))
        )
        async with self._database.reading() as session:
            return set(await session.scalars(query))

    async def drained(self, before_ms: int, held: Collection[str], limit: int) -> list[Adapter]:
        """Return adapters that began to drain before then and are not among `held`, which replicas hold by name."""
        draining = select(AdapterRow).where(
            AdapterRow.state == AdapterState.DRAINING,
            AdapterRow.draining_ms < before_ms,
            AdapterRow.name.not_in(held),
        )
        return await self._adapters(draining.order_by(AdapterRow.draining_ms, AdapterRow.id).limit(limit))

    async def retired(self, adapter: AdapterId) -> None:
        """Note that no replica holds a draining adapter any more; noting it again changes nothing."""
        async with self._database.transaction() as session:
            row = await session.get(AdapterRow, adapter, with_for_update=True)
            if row is not None and row.state == AdapterState.DRAINING:
                row.state, row.retired_ms = AdapterState.RETIRED, self._clock.now_ms()
                note_state(session, row, WORKER, AdapterState.DRAINING, audit=self._audit, at_ms=row.retired_ms)

    async def with_files_to_delete(self, before_ms: int, held: Collection[str], limit: int) -> list[Adapter]:
        """Return adapters that retired by then, whose files are still there, and which are not among `held`."""
        retired = select(AdapterRow).where(
            AdapterRow.state == AdapterState.RETIRED,
            AdapterRow.files_deleted_ms.is_(None),
            AdapterRow.retired_ms <= before_ms,
            AdapterRow.name.not_in(held),
        )
        return await self._adapters(retired.order_by(AdapterRow.retired_ms, AdapterRow.id).limit(limit))

    async def files_deleted(self, adapter: AdapterId) -> None:
        """Note that an adapter's files are gone; noting it again changes nothing."""
        async with self._database.transaction() as session:
            row = await session.get(AdapterRow, adapter, with_for_update=True)
            if row is not None and row.files_deleted_ms is None:
                row.files_deleted_ms = self._clock.now_ms()
                self._audit(
                    session,
                    OrganizationId(row.organization),
                    WORKER,
                    "adapter.files_deleted",
                    row.id,
                    at=row.files_deleted_ms // 1000,
                    details={"model": row.name},
                    before={},
                )

    async def adapter(self, adapter: AdapterId) -> AdapterView:
        """Return one adapter of whomever; `NotFound` where there is none."""
        async with self._database.reading() as session:
            row = await session.get(AdapterRow, adapter)
            if row is None:
                raise NotFound(f"No such adapter: `{adapter[:64]}`.")
            return AdapterView.of(row)

    async def adapters(
        self, *, organization: str | None, state: AdapterState | None, after: str | None, limit: int
    ) -> list[AdapterView]:
        """Return adapters, newest first, from behind the one with the id `after` on (`NotFound` without one)."""
        query = select(AdapterRow)
        if organization is not None:
            query = query.where(AdapterRow.organization == organization)
        if state is not None:
            query = query.where(AdapterRow.state == state)
        async with self._database.reading() as session:
            last = None if after is None else await session.get(AdapterRow, after)
            if last is None and after is not None:
                raise NotFound(f"No such adapter: `{after}`.")
            part = part_of_list(query, AdapterRow.created_ms, AdapterRow.id, after=last, limit=limit)
            return [AdapterView.of(row) for row in await session.scalars(part)]

    async def counts(self) -> dict[str, dict[AdapterState, int]]:
        query = select(AdapterRow.base, AdapterRow.state, func.count()).group_by(AdapterRow.base, AdapterRow.state)
        found: dict[str, dict[AdapterState, int]] = {}
        async with self._database.reading() as session:
            for base, state, count in await session.execute(query):
                found.setdefault(base, {})[AdapterState(state)] = count
        return found

    async def _adapters(self, query: Select[AdapterRow]) -> list[Adapter]:
        async with self._database.reading() as session:
            return [Adapter.of(row) for row in await session.scalars(query)]


def _ranked(organizations: Sequence[OrganizationId], most: int) -> Select[str, str, str, int, int]:
    """Return a query of the first `most` live adapters of each: organization, base, name, rank, and since when live."""
    named = exists().where(AliasRow.organization == AdapterRow.organization, AliasRow.adapter == AdapterRow.id)
    order = named.desc(), AdapterRow.checkpoint_of.is_not(None), AdapterRow.live_ms.desc(), AdapterRow.id
    rank = func.row_number().over(partition_by=AdapterRow.organization, order_by=order).label("rank")
    ranked = (
        select(AdapterRow.organization, AdapterRow.base, AdapterRow.name, rank, AdapterRow.live_ms)
        .where(AdapterRow.organization.in_(organizations), AdapterRow.state == AdapterState.LIVE)
        .subquery()
    )
    columns = ranked.c.organization, ranked.c.base, ranked.c.name, ranked.c.rank, ranked.c.live_ms
    return select(*columns).where(ranked.c.rank <= most)
