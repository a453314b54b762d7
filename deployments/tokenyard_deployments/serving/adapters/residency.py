"""Which adapters the engine holds in memory: loaded before they are used, unloaded only when no request uses them.

vLLM may read an adapter that it holds from its folder again in any step, and a missing folder ends the engine. So a
folder is deleted only after its adapter has left the engine, and who asks for it meanwhile waits and loads it anew.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tokenyard.core.adapters import AdapterRef
from tokenyard.core.errors import Conflict, InvalidRequest, ModelNotFound, Unavailable
from tokenyard_deployments.serving.adapters.files import AdapterRejected
from tokenyard_deployments.serving.adapters.rejected import RejectedAdapters
from tokenyard_deployments.serving.shares import Shares

_LOG = logging.getLogger(__name__)
LOAD_TIMEOUT_S = 120.0
ROOM_TIMEOUT_S = 30.0
MAX_LOADS = 64
MAX_WAITING = 384
"""Requests; each holds nothing but its body."""
RETRY_S = 5.0


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
    leaving: asyncio.Task[None] | None = None

    @property
    def idle(self) -> bool:
        return not self.users and self.leaving is None


class Residency:
    """At most `capacity` adapters are resident, the engine's own bound, so it never drops one by itself.

    At most `max_waiting` requests wait for a load, of which those for one adapter are a third.
    """

    def __init__(
        self,
        engine: AdapterEngine,
        source: AdapterSource,
        capacity: int,
        *,
        max_waiting: int = MAX_WAITING,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._source = source
        self._capacity = capacity
        self._residents: OrderedDict[str, _Resident] = OrderedDict()  # least recently used first
        self._loading: dict[str, asyncio.Task[None]] = {}
        self._waiting = Shares(max_waiting // 3)
        self._rejected = RejectedAdapters(now)
        # Held by who loads, let go by who waits for room; told whenever there may be some.
        self._changing = asyncio.Condition()
        self._telling: set[asyncio.Task[None]] = set()

    @property
    def names(self) -> tuple[str, ...]:
        """Resident adapters, the least recently used first."""
        return tuple(self._residents)

    @asynccontextmanager
    async def using(self, adapter: AdapterRef | None) -> AsyncIterator[None]:
        """Make `adapter` resident and keep it so meanwhile. None is the base model: nothing to do.

        Raises:
            AdapterRejected: it cannot be served.
            Conflict: its name is resident with another content.
            Unavailable: too many wait, no room became free in time, or the blob store cannot be read now.
        """
        if adapter is None:
            yield
            return
        if not self._capacity:
            raise InvalidRequest("This model serves no fine-tuned models.")
        async with self._kept(await self._enter(adapter)):
            yield

    @asynccontextmanager
    async def keeping(self, name: str | None) -> AsyncIterator[None]:
        """Keep an adapter that is resident so meanwhile; one that is not raises `ModelNotFound`. None: the base."""
        if name is None:
            yield
            return
        resident = self._residents.get(name)
        if resident is None or resident.leaving is not None:
            raise ModelNotFound(f"{name} is not resident")
        resident.users += 1
        async with self._kept(resident):
            yield

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
        await self._evict(name, resident)

    async def _enter(self, adapter: AdapterRef) -> _Resident:
        while True:
            resident = self._residents.get(adapter.name)
            if resident is None:
                await self._load_once(adapter)
            elif resident.leaving is not None:
                await asyncio.wait((resident.leaving,))
            elif resident.digest != adapter.digest:
                raise Conflict(f"{adapter.name} is resident with another content", code="adapter_changed")
            else:
                # No await between the look-up and here: nobody can evict it in between.
                resident.users += 1
                self._residents.move_to_end(adapter.name)
                return resident

    @asynccontextmanager
    async def _kept(self, resident: _Resident) -> AsyncIterator[None]:
        try:
            yield
        finally:
            resident.users -= 1
            self._tell()

    def _tell(self) -> None:
        """Wake those that wait for room; from a task of its own, because this one may be cancelled."""

        async def tell() -> None:
            async with self._changing:
                self._changing.notify_all()

        telling = asyncio.create_task(tell())
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)

    async def _load_once(self, adapter: AdapterRef) -> None:
        self._rejected.check(adapter)
        task = self._loading.get(adapter.name)
        if self._waiting.lacking(adapter.name, 1) or (task is None and len(self._loading) >= MAX_LOADS):
            raise Unavailable("Too many requests wait for models to be loaded.", retry_after_s=RETRY_S)
        if task is None:
            task = asyncio.create_task(self._load(adapter), name=f"load {adapter.name}")
            self._loading[adapter.name] = task
            task.add_done_callback(lambda _done: self._loading.pop(adapter.name, None))
        self._waiting.take(adapter.name, 1)
        try:
            # A caller that leaves does not take the load away from the others that wait for it.
            await asyncio.shield(task)
        finally:
            self._waiting.give_back(adapter.name, 1)

    async def _load(self, adapter: AdapterRef) -> None:
        try:
            async with asyncio.timeout(LOAD_TIMEOUT_S):
                folder = await self._source.fetch(adapter)
                async with self._changing:
                    await self._make_room()
                    await self._hand_over(adapter, folder)
        except AdapterRejected as error:
            self._rejected.add(adapter, error)
            raise
        except OSError as error:  # a timeout is one, too
            _LOG.warning("adapter %s cannot be loaded now: %r", adapter.name, error)
            raise Unavailable("The model cannot be loaded right now.", retry_after_s=RETRY_S) from error
        _LOG.info("adapter %s is resident (%d of %d)", adapter.name, len(self._residents), self._capacity)

    async def _hand_over(self, adapter: AdapterRef, folder: Path) -> None:
        try:
            await self._engine.load_adapter(adapter.name, folder)
        except AdapterRejected:
            await self._source.delete(folder)
            raise
        self._residents[adapter.name] = _Resident(adapter.digest, folder)

    async def _make_room(self) -> None:
        try:
            async with asyncio.timeout(ROOM_TIMEOUT_S):
                while len(self._residents) >= self._capacity:
                    idle = next(((name, one) for name, one in self._residents.items() if one.idle), None)
                    if idle is None:
                        await self._changing.wait()
                    else:
                        await self._evict(*idle)
        except TimeoutError:
            raise Unavailable("All adapters in memory are in use.", retry_after_s=ROOM_TIMEOUT_S) from None

    async def _evict(self, name: str, resident: _Resident) -> None:
        if resident.leaving is None:
            resident.leaving = asyncio.create_task(self._leave(name, resident), name=f"unload {name}")
        # Half an eviction would be worse than none: it goes on where its caller leaves.
        await asyncio.shield(resident.leaving)

    async def _leave(self, name: str, resident: _Resident) -> None:
        try:
            await self._engine.unload_adapter(name)
        except BaseException:
            resident.leaving = None  # the engine may hold it still
            raise
        await self._source.delete(resident.folder)
        del self._residents[name]
        self._tell()
        _LOG.info("adapter %s was unloaded", name)
