"""Adapters across organizations: for worker loops and operator routes only."""

from collections.abc import Iterable

from sqlalchemy import Select, func, select, update

from tokenyard.catalog.store import Adapter
from tokenyard.catalog.tables import AdapterRow, AdapterState
from tokenyard.catalog.views import AdapterView
from tokenyard.core.clock import Clock
from tokenyard.core.errors import NotFound
from tokenyard.core.ids import AdapterId
from tokenyard.storage.database import Database
from tokenyard.storage.paging import part_of_list


class CatalogOperatorStore:
    """What the loops that place, unload and delete adapters look for."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def newest_live(self, base: str, limit: int) -> list[Adapter]:
        """Return the adapters of a base model that went live last, newest first."""
        live = select(AdapterRow).where(AdapterRow.base == base, AdapterRow.state == AdapterState.LIVE)
        return await self._adapters(live.order_by(AdapterRow.live_ms.desc(), AdapterRow.id).limit(limit))

    async def may_be_resident(self, names: Iterable[str]) -> set[str]:
        """Return those of `names` that replicas may hold: live ones, and those being checked."""
        query = select(AdapterRow.name).where(
            AdapterRow.name.in_(list(names)), AdapterRow.state.in_((AdapterState.LIVE, AdapterState.CHECKING))
        )
        async with self._database.reading() as session:
            return set(await session.scalars(query))

    async def with_files_to_delete(self, retired_before_ms: int, limit: int) -> list[Adapter]:
        """Return adapters that retired before then and whose files are still there, oldest first."""
        retired = select(AdapterRow).where(
            AdapterRow.state == AdapterState.RETIRED,
            AdapterRow.files_deleted_ms.is_(None),
            AdapterRow.retired_ms < retired_before_ms,
        )
        return await self._adapters(retired.order_by(AdapterRow.retired_ms, AdapterRow.id).limit(limit))

    async def files_deleted(self, adapter: AdapterId) -> None:
        """Note that an adapter's files are gone."""
        async with self._database.transaction() as session:
            await session.execute(
                update(AdapterRow).where(AdapterRow.id == adapter).values(files_deleted_ms=self._clock.now_ms())
            )

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
