"""Which adapters the engine holds in memory: loaded before they are used, unloaded only when no request uses them.

vLLM may read an adapter that it holds from its folder again in any step, and a missing folder ends the engine. So the
copy on the disk is let go only after its adapter has left the engine, and who asks for it meanwhile loads it anew.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tokenyard.core.adapters import AdapterRef
from tokenyard.core.errors import Conflict, InvalidRequest, ModelNotFound, Unavailable
from tokenyard_deployments.serving.adapters.disk_cache import CacheFull
from tokenyard_deployments.serving.adapters.files import AdapterRejected
from tokenyard_deployments.serving.adapters.rejected import RejectedAdapters
from tokenyard_deployments.serving.adapters.use_rates import UseRates
from tokenyard_deployments.serving.shares import Shares

_LOG = logging.getLogger(__name__)
LOAD_TIMEOUT_S = 120.0
ROOM_TIMEOUT_S = 30.0
LOADS_AT_ONCE = 4
"""In the engine, which takes them in between two steps: more would save waiting, and make the pause longer."""
MAX_LOADS = 64
"""More than may be under way from a blob store, so that one that hangs leaves some for what is on the disk."""
MAX_WAITING = 384
"""Requests; each holds nothing but its body."""
RETRY_S = 5.0


class AdapterEngine(Protocol):
    """The engine, as far as adapters go."""

    async def load_adapter(self, name: str, folder: Path) -> None: ...

    async def unload_adapter(self, name: str) -> None: ...


class LocalCopy(Protocol):
    """An adapter on the disk, where it stays until it is released."""

    @property
    def folder(self) -> Path: ...

    def release(self) -> None: ...


class AdapterSource(Protocol):
    """Where the files come from."""

    async def fetch(self, adapter: AdapterRef) -> LocalCopy: ...


@dataclass
class _Resident:
    digest: str
    copy: LocalCopy
    users: int
    leaving: asyncio.Task[None] | None = None

    @property
    def idle(self) -> bool:
        return not self.users and self.leaving is None


@dataclass
class _Load:
    """The requests that wait for it are its adapter's users from its end on: the next load cannot take it from them."""

    waiting: int = 0
    begun: bool = False
    resident: _Resident | None = None
    task: asyncio.Task[_Resident] | None = None


class Residency:
    """At most `capacity` adapters are resident, the engine's own bound, so it never drops one by itself.

    Room is given in the order in which it was asked for. At most `max_waiting` requests wait for a load, of which those
    for one adapter are a third.
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
        self.capacity = capacity
        self._residents: OrderedDict[str, _Resident] = OrderedDict()  # least recently used first
        self._loading: dict[str, _Load] = {}
        self._waiting = Shares(max_waiting // 3)
        self._rejected = RejectedAdapters(now)
        # A place belongs to who loads an adapter, then to the adapter until it has left the engine.
        self._places = asyncio.Semaphore(capacity)
        self._taken = 0
        self._wanted = 0
        self._handing_over = asyncio.Semaphore(LOADS_AT_ONCE)
        self._pinned: tuple[str, ...] = ()
        self.rates = UseRates(now)
        self.hits = 0
        self.loads = 0
        self.evictions = 0
        self.failures = 0

    @property
    def names(self) -> tuple[str, ...]:
        """Resident adapters, the least recently used first."""
        return tuple(self._residents)

    @property
    def in_use(self) -> int:
        return sum(not resident.idle for resident in self._residents.values())

    @property
    def waiting(self) -> int:
        """Requests that wait for a load."""
        return self._waiting.total

    @property
    def pinned(self) -> tuple[str, ...]:
        """Adapters that make room for no other once they are resident."""
        return self._pinned

    def pin(self, names: Sequence[str]) -> None:
        """Pin these and no others; the last ones are not where they would leave others less than half of the room."""
        self._pinned = tuple(names[: self.capacity // 2])
        self._make_room()

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
        self.rates.count(adapter.name)
        async with self._made_resident(adapter):
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
        async with self._made_resident(adapter):
            return

    async def unload(self, name: str) -> None:
        """Make `name` not resident; it is fine if it is not. While requests use it, this raises `Conflict`."""
        resident = self._residents.get(name)
        if resident is None:
            return
        if resident.users:
            raise Conflict(f"{resident.users} requests use {name}", code="adapter_in_use")
        await self._evict(name, resident)

    @asynccontextmanager
    async def _made_resident(self, adapter: AdapterRef) -> AsyncIterator[None]:
        if not self.capacity:
            raise InvalidRequest("This model serves no fine-tuned models.")
        async with self._kept(await self._enter(adapter)) as resident:
            if resident.digest != adapter.digest:
                raise Conflict(f"{adapter.name} is resident with another content", code="adapter_changed")
            self._residents.move_to_end(adapter.name)
            yield

    async def _enter(self, adapter: AdapterRef) -> _Resident:
        """Return the resident adapter, with one user more."""
        while True:
            resident = self._residents.get(adapter.name)
            if resident is None:
                return await self._loaded(adapter)
            if resident.leaving is None:
                # No await between the look-up and here: nobody can evict it in between.
                resident.users += 1
                self.hits += 1
                return resident
            await asyncio.wait((resident.leaving,))

    @asynccontextmanager
    async def _kept(self, resident: _Resident) -> AsyncIterator[_Resident]:
        try:
            yield resident
        finally:
            self._let_go(resident)

    def _let_go(self, resident: _Resident) -> None:
        resident.users -= 1
        self._make_room()

    async def _loaded(self, adapter: AdapterRef) -> _Resident:
        """Wait for the one load of `adapter`; return what it made resident, with one user more."""
        self._rejected.check(adapter)
        load = self._loading.get(adapter.name)
        if self._waiting.lacking(adapter.name, 1) or (load is None and len(self._loading) >= MAX_LOADS):
            raise Unavailable("Too many requests wait for models to be loaded.", retry_after_s=RETRY_S)
        task = (load := load or self._begin(adapter)).task
        assert task is not None
        self._waiting.take(adapter.name, 1)
        load.waiting += 1
        try:
            # A caller that leaves does not take the load away from the others that wait for it.
            return await asyncio.shield(task)
        except BaseException:
            if load.resident is None:
                load.waiting -= 1
            else:
                self._let_go(load.resident)
            raise
        finally:
            self._waiting.give_back(adapter.name, 1)

    def _begin(self, adapter: AdapterRef) -> _Load:
        load = self._loading[adapter.name] = _Load()
        load.task = asyncio.create_task(self._load(adapter, load), name=f"load {adapter.name}")
        load.task.add_done_callback(lambda _done: self._loading.pop(adapter.name))
        return load

    async def _load(self, adapter: AdapterRef, load: _Load) -> _Resident:
        try:
            async with asyncio.timeout(LOAD_TIMEOUT_S):
                copy = await self._fetch(adapter)
                try:
                    await self._take_place(adapter, copy, load)
                except BaseException as error:
                    # Cut off in the middle, the engine may take it all the same, and read it again in any step.
                    if not (load.begun and isinstance(error, asyncio.CancelledError)):
                        copy.release()
                    raise
        except AdapterRejected as error:
            self._rejected.add(adapter, error)
            raise
        except OSError as error:  # a timeout is one, too
            _LOG.warning("adapter %s cannot be loaded now: %r", adapter.name, error)
            raise Unavailable("The model cannot be loaded right now.", retry_after_s=RETRY_S) from error
        finally:
            self.failures += load.resident is None
        assert load.resident is not None
        _LOG.info("adapter %s is resident (%d of %d)", adapter.name, len(self._residents), self.capacity)
        return load.resident

    async def _fetch(self, adapter: AdapterRef) -> LocalCopy:
        while True:
            try:
                return await self._source.fetch(adapter)
            except CacheFull:
                # What is resident keeps its copy on the disk.
                if (idle := self._idle()) is None:
                    raise
                await self._evict(*idle)

    async def _take_place(self, adapter: AdapterRef, copy: LocalCopy, load: _Load) -> None:
        """Wait for a place, then load the adapter into the engine."""
        await self._wait_for_place()
        try:
            async with self._handing_over:
                load.begun = True
                await self._engine.load_adapter(adapter.name, copy.folder)
            self.loads += 1
            load.resident = self._residents[adapter.name] = _Resident(adapter.digest, copy, load.waiting)
        except BaseException:
            self._give_place_back()
            raise

    async def _wait_for_place(self) -> None:
        self._wanted += 1
        self._make_room()
        try:
            async with asyncio.timeout(ROOM_TIMEOUT_S):
                await self._places.acquire()
        except TimeoutError:
            raise Unavailable("All adapters in memory are in use.", retry_after_s=ROOM_TIMEOUT_S) from None
        finally:
            self._wanted -= 1
        self._taken += 1

    def _give_place_back(self) -> None:
        self._taken -= 1
        self._places.release()

    def _make_room(self) -> None:
        """Let as many go as there are loads that wait for a place."""
        leaving = sum(resident.leaving is not None for resident in self._residents.values())
        for _ in range(self._wanted - leaving - (self.capacity - self._taken)):
            if (idle := self._idle()) is None:
                return
            self._begin_eviction(*idle)

    def _idle(self) -> tuple[str, _Resident] | None:
        """Return the least recently used of those that may go."""
        return next((one for one in self._residents.items() if one[1].idle and one[0] not in self._pinned), None)

    async def _evict(self, name: str, resident: _Resident) -> None:
        # Half an eviction would be worse than none: it goes on where its caller leaves.
        await asyncio.shield(resident.leaving or self._begin_eviction(name, resident))

    def _begin_eviction(self, name: str, resident: _Resident) -> "asyncio.Task[None]":
        resident.leaving = asyncio.create_task(self._leave(name, resident), name=f"unload {name}")
        resident.leaving.add_done_callback(_tell)
        return resident.leaving

    async def _leave(self, name: str, resident: _Resident) -> None:
        try:
            await self._engine.unload_adapter(name)
        except BaseException:
            resident.leaving = None  # the engine may hold it still
            raise
        resident.copy.release()
        del self._residents[name]
        self.evictions += 1
        self._give_place_back()
        _LOG.info("adapter %s was unloaded", name)


def _tell(eviction: "asyncio.Task[None]") -> None:
    if not eviction.cancelled() and (error := eviction.exception()) is not None:
        _LOG.warning("%s failed: %r", eviction.get_name(), error)
