"""Which adapters are in memory: loaded once, never dropped under a request, room made by the least used."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tokenyard.core.adapters import AdapterRef
from tokenyard.core.errors import Conflict, InvalidRequest, Unavailable
from tokenyard.core.ids import AdapterId
from tokenyard_deployments.serving.adapters import residency as module
from tokenyard_deployments.serving.adapters.files import AdapterRejected
from tokenyard_deployments.serving.adapters.residency import Residency


class Engine:
    """Keeps what it is told, as vLLM's registry does; loading takes until it is let go."""

    def __init__(self) -> None:
        self.held: list[str] = []
        self.most = 0
        self.loads = 0
        self.go = asyncio.Event()
        self.go.set()

    async def load_adapter(self, name: str, folder: Path) -> None:
        self.loads += 1
        await self.go.wait()
        if "broken" in name:
            raise AdapterRejected(name)
        self.held.append(name)
        self.most = max(self.most, len(self.held))

    async def unload_adapter(self, name: str) -> None:
        await asyncio.sleep(0)
        self.held.remove(name)


class Source:
    """Every adapter is there, except those named lost."""

    def __init__(self) -> None:
        self.folders: set[Path] = set()

    async def fetch(self, adapter: AdapterRef) -> Path:
        await asyncio.sleep(0)
        if "lost" in adapter.name:
            raise ConnectionError("the blob store is away")
        self.folders.add(Path(adapter.name))
        return Path(adapter.name)

    async def delete(self, path: Path) -> None:
        self.folders.remove(path)


def ref(name: str, digest: str = "0" * 64) -> AdapterRef:
    return AdapterRef(AdapterId(name), name, f"adapters/org/{name}", digest)


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def residency(engine: Engine, source: Source) -> Residency:
    return Residency(engine, source, capacity=2)


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
    assert source.folders == {Path("a"), Path("c")}


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
