"""Brings budgets that Redis does not have from SQL."""

import asyncio
from collections.abc import Sequence

from tokenyard.core.ids import OrganizationId
from tokenyard.core.redis_keys import bucket_of, bucket_tag
from tokenyard.limits.ports import BudgetSource
from tokenyard.limits.refusals import not_available
from tokenyard.limits.scripts import ScriptName, Scripts

LOAD_TIMEOUT_S = 5.0


class BudgetLoader:
    """Loads each missing budget once, however many requests wait for it."""

    def __init__(self, scripts: Scripts, source: BudgetSource) -> None:
        self._scripts = scripts
        self._source = source
        self._loading: dict[str, asyncio.Task[bool]] = {}

    async def load(self, organization: OrganizationId, names: Sequence[str]) -> str | None:
        """Load the budgets called `names`; return the first that SQL does not have either.

        Raises:
            Unavailable: SQL did not answer in time.
            RedisError: Redis did not take it.
        """
        for name in names:
            if not await asyncio.shield(self._once(organization, name)):
                return name
        return None

    def _once(self, organization: OrganizationId, name: str) -> "asyncio.Task[bool]":
        task = self._loading.get(name)
        if task is None:
            task = asyncio.create_task(self._load(organization, name))
            self._loading[name] = task
            task.add_done_callback(lambda _done: self._loading.pop(name, None))
        return task

    async def _load(self, organization: OrganizationId, name: str) -> bool:
        try:
            async with asyncio.timeout(LOAD_TIMEOUT_S):
                state = await self._source.load(organization, name)
        except TimeoutError:
            raise not_available() from None
        if state is None:
            return False
        tag = bucket_tag(bucket_of(organization))
        await self._scripts.run(ScriptName.LOAD, tag, [name, state.ledger, state.version])
        return True
