"""Which adapters the engine holds in memory: loaded before they are used, unloaded only when no request uses them."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tokenyard.core.adapters import AdapterRef
from tokenyard.core.errors import Conflict, InvalidRequest, Unavailable

_LOG = logging.getLogger(__name__)
LOAD_TIMEOUT_S = 120.0
ROOM_TIMEOUT_S = 30.0


class AdapterEngine(Protocol):
    """The engine, as far as adapters go."""

    async def load_adapter(self, name: str, folder: Path) -> None: ...

    async def unload_adapter(self, name: str) -> None: ...


class AdapterSource(Protocol):
    """Where the files come from."""

    async def fetch(self, adapter: AdapterRef) -> Path: ...

    async def delete(self, path: Path) -> None: ...


@dataclass
class _Resident:
    digest: str
    folder: Path
    users: int = 0


class Residency:
    """At most `capacity` adapters are resident, the engine's own bound, so it never drops one by itself."""

    def __init__(self, engine: AdapterEngine, source: AdapterSource, capacity: int) -> None:
        self._engine = engine
        self._source = source
        self._capacity = capacity
        self._residents: OrderedDict[str, _Resident] = OrderedDict()  # least recently used first
        self._loading: dict[str, asyncio.Task[None]] = {}
        self._load_lock = asyncio.Lock()
        self._released = asyncio.Event()

    @property
    def names(self) -> tuple[str, ...]:
        """Resident adapters, the least recently used first."""
        return tuple(self._residents)

    @asynccontextmanager
    async def using(self, adapter: AdapterRef | None) -> AsyncIterator[None]:
        """Make `adapter` resident and keep it so meanwhile. None is the base model: nothing to do.

        Raises:
            AdapterRejected: it cannot be served.
            Unavailable: no room became free in time, or the blob store cannot be read now.
        """
        if adapter is None:
            yield
            return
        if not self._capacity:
            raise InvalidRequest("This model serves no fine-tuned models.")
        resident = await self._enter(adapter)
        try:
            yield
        finally:
            resident.users -= 1
            self._released.set()

    async def load(self, adapter: AdapterRef) -> None:
        """Make `adapter` resident; it is fine if it is. Raises as `using` does."""
        async with self.using(adapter):
            return

    async def unload(self, name: str) -> None:
        """Make `name` not resident; it is fine if it is not. While requests use it, this raises `Conflict`."""
        resident = self._residents.get(name)
        if resident is None:
            return
        if resident.users:
            raise Conflict(f"{resident.users} requests use {name}", code="adapter_in_use")
        await self._evict(name)

    async def _enter(self, adapter: AdapterRef) -> _Resident:
        while True:
            resident = self._residents.get(adapter.name)
            if resident is not None and resident.digest == adapter.digest:
                # No await between here and the look-up: nobody can evict it in between.
                resident.users += 1
                self._residents.move_to_end(adapter.name)
                return resident
            if resident is not None:
                raise Conflict(f"{adapter.name} is resident with another content", code="adapter_changed")
            await self._load_once(adapter)

    async def _load_once(self, adapter: AdapterRef) -> None:
        task = self._loading.get(adapter.name)
        if task is None:
            task = asyncio.create_task(self._load(adapter), name=f"load {adapter.name}")
            self._loading[adapter.name] = task
            task.add_done_callback(lambda _done: self._loading.pop(adapter.name, None))
        # A caller that leaves does not take the load away from the others that wait for it.
        await asyncio.shield(task)

    async def _load(self, adapter: AdapterRef) -> None:
        try:
            async with asyncio.timeout(LOAD_TIMEOUT_S):
                folder = await self._source.fetch(adapter)
                async with self._load_lock:
                    await self._make_room()
                    await self._engine.load_adapter(adapter.name, folder)
                    self._residents[adapter.name] = _Resident(adapter.digest, folder)
        except OSError as error:  # a timeout is one, too
            _LOG.warning("adapter %s cannot be loaded now: %r", adapter.name, error)
            raise Unavailable("The model cannot be loaded right now.", retry_after_s=5) from error
        _LOG.info("adapter %s is resident (%d of %d)", adapter.name, len(self._residents), self._capacity)

    async def _make_room(self) -> None:
        try:
            async with asyncio.timeout(ROOM_TIMEOUT_S):
                while len(self._residents) >= self._capacity:
                    idle = next((name for name, resident in self._residents.items() if not resident.users), None)
                    if idle is not None:
                        await self._evict(idle)
                    else:
                        self._released.clear()
                        await self._released.wait()
        except TimeoutError:
            raise Unavailable("All adapters in memory are in use.", retry_after_s=ROOM_TIMEOUT_S) from None

    async def _evict(self, name: str) -> None:
        resident = self._residents.pop(name)
        await self._engine.unload_adapter(name)
        await self._source.delete(resident.folder)
        _LOG.info("adapter %s was unloaded", name)
