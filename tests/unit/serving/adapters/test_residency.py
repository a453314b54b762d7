"""Which adapters are in memory: loaded once, never dropped under a request, room made by the least used."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tokenyard.core.adapters import AdapterRef
from tokenyard.core.errors import Conflict, InvalidRequest, ModelNotFound, Unavailable
from tokenyard.core.ids import AdapterId
from tokenyard_deployments.serving.adapters import rejected
from tokenyard_deployments.serving.adapters import residency as module
from tokenyard_deployments.serving.adapters.disk_cache import CacheFull
from tokenyard_deployments.serving.adapters.files import AdapterRejected
from tokenyard_deployments.serving.adapters.residency import Residency


class Engine:
    """Keeps what it is told, as vLLM's registry does, and reads the folder; both take until they are let go."""

    def __init__(self) -> None:
        self.held: dict[str, Path] = {}
        self.most = 0
        self.loads = 0
        self.go = asyncio.Event()
        self.go.set()
        self.let_go = asyncio.Event()
        self.let_go.set()
        self.leaving = 0
        self.most_at_once = 0
        self.loading = 0

    async def load_adapter(self, name: str, folder: Path) -> None:
        self.loads += 1
        self.loading += 1
        self.most_at_once = max(self.most_at_once, self.loading)
        await self.go.wait()
        self.loading -= 1
        if "broken" in name:
            raise AdapterRejected(name)
        assert folder.is_dir(), f"{name} was deleted before it was loaded"  # noqa: ASYNC240
        assert name not in self.held, f"{name} has already been loaded"
        self.held[name] = folder
        self.most = max(self.most, len(self.held))

    async def unload_adapter(self, name: str) -> None:
        self.leaving += 1
        await self.let_go.wait()
        await asyncio.sleep(0)
        self.leaving -= 1
        del self.held[name]

    def step(self) -> None:
        """Do what vLLM may do in any step: read an adapter that it holds from its folder again."""
        for name, folder in self.held.items():
            assert folder.is_dir(), f"{name} was deleted while the engine held it"


class Copy:
    """On the disk as long as anybody holds it."""

    def __init__(self, source: "Source", name: str) -> None:
        self._source = source
        self._name = name
        self.folder = source.root / name
        self.folder.mkdir(exist_ok=True)
        source.held[name] += 1

    def release(self) -> None:
        self._source.held[self._name] -= 1
        if not self._source.held[self._name]:
            self.folder.rmdir()


class Source:
    """Every adapter is there, except those named lost; what nobody holds is deleted at once, as the disk's bound may.

    Of those named large, only so many as `room` fit.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.fetched: list[str] = []
        self.held = Counter[str]()
        self.room = 0

    async def fetch(self, adapter: AdapterRef) -> Copy:
        self.fetched.append(adapter.name)
        await asyncio.sleep(0)
        if "lost" in adapter.name:
            raise ConnectionError("the blob store is away")
        if "damaged" in adapter.name:
            raise AdapterRejected(adapter.name)
        if "large" in adapter.name and sum("large" in name for name in self.folders) >= self.room:
            raise CacheFull("no room")
        copy = Copy(self, adapter.name)
        await asyncio.sleep(0)
        return copy

    @property
    def folders(self) -> set[str]:
        return {folder.name for folder in self.root.iterdir()}


def ref(name: str, digest: str = "0" * 64) -> AdapterRef:
    return AdapterRef(AdapterId(name), name, f"adapters/org/{name}", digest)


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path)


@pytest.fixture
def residency(engine: Engine, source: Source) -> Residency:
    return Residency(engine, source, capacity=2)


async def settle() -> None:
    """Let every task run as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def use(residency: Residency, name: str) -> None:
    async with residency.using(ref(name)):
        pass


async def test_the_base_model_needs_nothing(residency: Residency, engine: Engine) -> None:
    async with residency.using(None):
        assert engine.loads == 0


async def test_many_first_requests_load_once(residency: Residency, engine: Engine) -> None:
    engine.go.clear()
    users = [asyncio.create_task(use(residency, "a")) for _ in range(20)]
    for _ in range(5):
        await asyncio.sleep(0)
    users[0].cancel()  # the one that began the load leaves
    engine.go.set()
    await asyncio.gather(*users[1:])
    assert engine.loads == 1
    assert residency.names == ("a",)


async def test_the_least_recently_used_makes_room(residency: Residency, engine: Engine, source: Source) -> None:
    for name in ("a", "b", "a", "c"):
        await use(residency, name)
    assert set(residency.names) == {"a", "c"} == set(engine.held)
    assert source.folders == {"a", "c"}


async def test_an_adapter_with_a_request_inside_stays(residency: Residency, engine: Engine) -> None:
    async with residency.using(ref("a")):
        for name in ("b", "c", "d"):
            await use(residency, name)
        assert "a" in engine.held
        with pytest.raises(Conflict):
            await residency.unload("a")
    await residency.unload("a")
    await residency.unload("a")
    assert "a" not in engine.held


async def test_who_finds_no_room_waits_for_it(residency: Residency, engine: Engine) -> None:
    async with AsyncExitStack() as inside:
        await inside.enter_async_context(residency.using(ref("a")))
        await inside.enter_async_context(residency.using(ref("b")))
        waiting = asyncio.create_task(use(residency, "c"))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not waiting.done()
    async with asyncio.timeout(1):
        await waiting
    assert engine.most == 2


async def test_but_not_for_ever(residency: Residency, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROOM_TIMEOUT_S", 0.01)
    async with residency.using(ref("a")), residency.using(ref("b")):
        with pytest.raises(Unavailable):
            await use(residency, "c")
    await use(residency, "c")


async def test_many_at_once_never_exceed_the_capacity(residency: Residency, engine: Engine) -> None:
    async with asyncio.timeout(5):
        await asyncio.gather(*(use(residency, f"adapter-{number % 7}") for number in range(100)))
    assert engine.most <= 2


@pytest.mark.parametrize(("name", "error"), [("broken", AdapterRejected), ("lost", Unavailable)])
async def test_a_failed_load_leaves_nothing_behind_and_may_be_tried_again(
    residency: Residency, name: str, error: type[Exception]
) -> None:
    for _ in range(2):
        with pytest.raises(error):
            await use(residency, name)
    assert residency.names == ()
    await use(residency, "fine")


async def test_a_name_never_changes_its_content(residency: Residency) -> None:
    await use(residency, "a")
    with pytest.raises(Conflict):
        await residency.load(ref("a", digest="1" * 64))


async def test_a_model_without_adapters_says_so(engine: Engine, source: Source) -> None:
    with pytest.raises(InvalidRequest):
        await use(Residency(engine, source, capacity=0), "a")


async def test_who_asks_during_an_eviction_gets_a_fresh_copy(
    residency: Residency, engine: Engine, source: Source
) -> None:
    for name in ("a", "b"):
        await use(residency, name)
    engine.let_go.clear()
    other = asyncio.create_task(use(residency, "c"))  # makes room by "a"
    await settle()
    again = asyncio.create_task(use(residency, "a"))
    await settle()
    engine.let_go.set()
    async with asyncio.timeout(1):
        await asyncio.gather(other, again)
    engine.step()
    assert set(engine.held) == set(residency.names) == source.folders


async def test_an_unload_and_a_request_do_not_meet(residency: Residency, engine: Engine, source: Source) -> None:
    await use(residency, "a")
    engine.let_go.clear()
    unloading = asyncio.create_task(residency.unload("a"))
    await settle()
    again = asyncio.create_task(use(residency, "a"))
    twice = asyncio.create_task(residency.unload("a"))
    await settle()
    assert not again.done()
    engine.let_go.set()
    async with asyncio.timeout(1):
        await asyncio.gather(unloading, again, twice)
    engine.step()
    assert residency.names == ("a",)


async def test_an_unload_that_its_caller_leaves_comes_to_its_end(
    residency: Residency, engine: Engine, source: Source
) -> None:
    await use(residency, "a")
    engine.let_go.clear()
    unloading = asyncio.create_task(residency.unload("a"))
    await settle()
    unloading.cancel()
    engine.let_go.set()
    await settle()
    assert residency.names == ()
    assert (engine.held, source.folders) == ({}, set())


async def test_what_is_asked_by_name_stays_meanwhile(residency: Residency, engine: Engine, source: Source) -> None:
    await use(residency, "a")
    async with residency.keeping("a"):
        for name in ("b", "c", "d"):
            await use(residency, name)
        engine.step()
        assert "a" in source.folders
    with pytest.raises(ModelNotFound):
        async with residency.keeping("b"):
            pass
    async with residency.keeping(None):
        pass


async def test_room_is_waited_for_without_keeping_others_from_making_it(residency: Residency) -> None:
    async with residency.using(ref("a")):
        await use(residency, "b")
        async with residency.using(ref("b")):
            waiting = asyncio.create_task(use(residency, "c"))
            await settle()
        async with asyncio.timeout(1):
            await residency.unload("b")
            await waiting


@pytest.mark.parametrize("name", ["damaged", "broken"])
async def test_a_rejected_adapter_is_remembered_for_a_while(engine: Engine, source: Source, name: str) -> None:
    now = [0.0]
    residency = Residency(engine, source, capacity=2, now=lambda: now[0])
    for _ in range(5):
        with pytest.raises(AdapterRejected):
            await use(residency, name)
    assert source.fetched == [name]
    with pytest.raises(AdapterRejected):
        await residency.load(ref(name, digest="1" * 64))  # another content may be right
    assert source.fetched == [name] * 2
    now[0] += rejected.REMEMBERED_S + 1
    with pytest.raises(AdapterRejected):
        await use(residency, name)
    assert source.fetched == [name] * 3


async def test_what_is_remembered_is_bounded(residency: Residency, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rejected, "MAX_REMEMBERED", 3)
    for number in range(10):
        with pytest.raises(AdapterRejected):
            await use(residency, f"damaged-{number}")
    assert len(residency._rejected) == 3


async def test_only_so_many_wait_for_a_load(engine: Engine, source: Source) -> None:
    residency = Residency(engine, source, capacity=2, max_waiting=6)
    engine.go.clear()
    waiting = [asyncio.create_task(use(residency, "a")) for _ in range(20)]
    await settle()
    refused = [task for task in waiting if task.done()]
    assert len(refused) == 18, "one adapter takes a third of the places"
    assert all(isinstance(task.exception(), Unavailable) for task in refused)
    other = asyncio.create_task(use(residency, "b"))
    await settle()
    assert not other.done()
    engine.go.set()
    async with asyncio.timeout(1):
        await asyncio.gather(other, *(task for task in waiting if task not in refused))


async def test_a_load_is_not_taken_away_from_those_that_waited_for_it(engine: Engine, source: Source) -> None:
    """With one place, each load is one request's: none is loaded, thrown out unused, and loaded again."""
    residency = Residency(engine, source, capacity=1)
    async with asyncio.timeout(5):
        await asyncio.gather(*(use(residency, f"adapter-{number}") for number in range(30)))
    assert engine.loads == 30
    assert source.held.total() == 1


async def test_who_leaves_while_it_waits_holds_no_place(engine: Engine, source: Source) -> None:
    residency = Residency(engine, source, capacity=1)
    for turns in range(40):
        engine.go.clear()
        left = asyncio.create_task(use(residency, f"left-{turns}"))
        await settle()
        engine.go.set()
        for _ in range(turns % 8):
            await asyncio.sleep(0)
        left.cancel()
        async with asyncio.timeout(1):
            await use(residency, f"other-{turns}")
    await settle()
    assert residency.in_use == 0


async def test_room_is_given_in_the_order_in_which_it_was_asked_for(engine: Engine, source: Source) -> None:
    residency = Residency(engine, source, capacity=1)
    order: list[str] = []

    async def one(name: str) -> None:
        async with residency.using(ref(name)):
            order.append(name)
            await asyncio.sleep(0.001)

    names = [f"adapter-{number:02}" for number in range(20)]
    async with asyncio.timeout(5):
        await asyncio.gather(*(one(name) for name in names))
    assert order == names


async def test_a_pinned_adapter_makes_room_for_nobody(engine: Engine, source: Source) -> None:
    residency = Residency(engine, source, capacity=4)
    residency.pin(["a", "b", "c"])
    assert residency.pinned == ("a", "b"), "at most half of the room"
    for name in ("a", "b", *(f"other-{number}" for number in range(10))):
        await use(residency, name)
    assert {"a", "b"} < set(residency.names)
    residency.pin([])
    for number in range(4):
        await use(residency, f"more-{number}")
    assert not {"a", "b"} & set(residency.names)


async def test_where_the_disk_is_full_an_idle_one_leaves_memory_for_the_next(engine: Engine, source: Source) -> None:
    residency, source.room = Residency(engine, source, capacity=8), 1
    await use(residency, "large-1")
    await use(residency, "large-2")
    async with residency.using(ref("large-2")):
        with pytest.raises(Unavailable):
            await use(residency, "large-3")


async def test_it_is_known_how_often_each_is_asked_for(engine: Engine, source: Source) -> None:
    now = [0.0]
    residency = Residency(engine, source, capacity=2, now=lambda: now[0])
    for name in ("a", "a", "a", "b"):
        await use(residency, name)
    await residency.load(ref("c"))  # which no request did
    rates = residency.rates.all()
    assert set(rates) == {"a", "b"}
    assert rates["a"] == pytest.approx(3 * rates["b"])
    now[0] += 3600
    assert residency.rates.all() == {}


async def test_what_the_engine_may_still_take_stays_on_the_disk(
    engine: Engine, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOAD_TIMEOUT_S", 0.05)
    residency = Residency(engine, source, capacity=2)
    engine.go.clear()
    with pytest.raises(Unavailable):
        await use(residency, "slow")
    engine.go.set()
    with pytest.raises(AdapterRejected):
        await use(residency, "broken")
    assert source.folders == {"slow"}


async def test_as_many_leave_at_once_as_wait_and_some_are_loaded_at_once(engine: Engine, source: Source) -> None:
    """Each takes the engine a step: one after another, a burst on cold adapters would wait for many."""
    residency = Residency(engine, source, capacity=8)
    for number in range(8):
        await use(residency, f"old-{number}")
    engine.let_go.clear()
    waiting = [asyncio.create_task(use(residency, f"new-{number}")) for number in range(6)]
    await settle()
    assert engine.leaving == 6
    assert engine.loads == 8
    engine.go.clear()
    engine.let_go.set()
    await settle()
    assert engine.loading == module.LOADS_AT_ONCE
    engine.go.set()
    async with asyncio.timeout(1):
        await asyncio.gather(*waiting)
    assert engine.most <= 8
    assert engine.most_at_once == module.LOADS_AT_ONCE
    assert {"old-6", "old-7"} < set(residency.names)


async def test_an_adapter_that_does_not_leave_keeps_its_place(engine: Engine, source: Source) -> None:
    residency = Residency(engine, source, capacity=1)
    await use(residency, "a")

    async def fail(name: str) -> None:
        raise ConnectionError(name)

    engine.unload_adapter, unload = fail, engine.unload_adapter  # type: ignore[method-assign]
    with pytest.raises(ConnectionError):
        await residency.unload("a")
    await use(residency, "a")
    engine.unload_adapter = unload  # type: ignore[method-assign]
    await use(residency, "b")
    assert set(engine.held) == {"b"}
