"""What a replica answers about itself, and the canary that keeps its adapter."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import msgspec
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import Response

from support.adapters.adapter_source import EveryAdapter
from tokenyard.core.adapters import AdapterRef
from tokenyard.core.errors import TokenyardError
from tokenyard.core.ids import AdapterId, OrganizationId
from tokenyard.core.replica import (
    CANARY_PATH,
    PINS_PATH,
    STATS_PATH,
    USES_PATH,
    AdapterUses,
    CanaryRequest,
    PinnedAdapters,
    ReplicaLoad,
    ReplicaState,
)
from tokenyard_deployments.serving.adapters.residency import Residency
from tokenyard_deployments.serving.front.admission import EngineAdmission, EngineBounds
from tokenyard_deployments.serving.front.errors import error_response
from tokenyard_deployments.serving.front.internal_routes import internal_router
from tokenyard_deployments.serving.front.request_body import Load

ONE = OrganizationId("org_1")


class Engine:
    """Answers a canary when told; unloading an adapter that a canary uses would end a real one."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.asked: set[str] = set()
        self.unloaded: list[str] = []

    async def continuation_logprobs(self, adapter: str | None, prompt: str, continuation: str) -> list[float]:
        self.asked.add(adapter or "")
        await self.go.wait()
        return [-1.0]

    async def load_adapter(self, name: str, folder: Path) -> None:
        return

    async def unload_adapter(self, name: str) -> None:
        assert name not in self.asked, "the engine ends: it reads the adapter again in its step"
        self.unloaded.append(name)


class RequestProgress:
    made = 0
    running = 0
    aborted = False


def ref(name: str) -> AdapterRef:
    return AdapterRef(AdapterId(name), name, f"adapters/org/{name}", "0" * 64)


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def residency(engine: Engine) -> Residency:
    return Residency(engine, EveryAdapter(), 2)


@pytest.fixture
def admission() -> EngineAdmission:
    return EngineAdmission(EngineBounds(slots=2, sequences=6, tokens=100))


@pytest.fixture
async def client(engine: Engine, residency: Residency, admission: EngineAdmission) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()

    def load() -> ReplicaLoad:
        return ReplicaLoad(admission.sequences, slots=2, waiting_tokens=7)

    app.include_router(internal_router(replica="r", model="m", engine=engine, load=load, residency=residency))

    async def render(_request: Request, error: Exception) -> Response:
        assert isinstance(error, TokenyardError)
        return error_response(error)

    app.add_exception_handler(TokenyardError, render)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://replica") as made:
        yield made


async def test_a_canary_keeps_its_adapter_in_memory(
    client: httpx.AsyncClient, engine: Engine, residency: Residency
) -> None:
    for name in ("tested", "b"):
        await residency.load(ref(name))
    body = msgspec.json.encode(CanaryRequest("Hello", "tested"))
    canary = asyncio.create_task(client.post(CANARY_PATH, content=body))
    async with asyncio.timeout(5):
        while not engine.asked:  # noqa: ASYNC110
            await asyncio.sleep(0)
        for name in ("c", "d", "e"):
            await residency.load(ref(name))
    engine.go.set()
    assert (await canary).json() == {"logprobs": [-1.0]}
    assert engine.unloaded == ["b", "c", "d"]


async def test_a_canary_of_what_is_not_resident_is_refused(client: httpx.AsyncClient, engine: Engine) -> None:
    engine.go.set()
    body = msgspec.json.encode(CanaryRequest("Hello", "nobody"))
    assert (await client.post(CANARY_PATH, content=body)).status_code == 404
    assert not engine.asked


async def test_the_state_tells_what_is_inside(client: httpx.AsyncClient, admission: EngineAdmission) -> None:
    with ExitStack() as inside:
        for sequences in (1, 4):
            inside.enter_context(
                admission.enter(OrganizationId(f"org_{sequences}"), Load(sequences, 1, 1), RequestProgress())
            )
        state = msgspec.json.decode((await client.get(STATS_PATH)).content, type=ReplicaState)
        assert (state.running, state.waiting, state.slots, state.waiting_tokens) == (2, 3, 2, 7)
    state = msgspec.json.decode((await client.get(STATS_PATH)).content, type=ReplicaState)
    assert (state.running, state.waiting) == (0, 0)


async def test_it_tells_what_it_is_asked_for_and_keeps_what_is_pinned(
    client: httpx.AsyncClient, residency: Residency, engine: Engine
) -> None:
    for name in ("a", "b", "b"):
        async with residency.using(ref(name)):
            pass
    pins = PinnedAdapters(("a", "more than half of the room"))
    said = await client.post(PINS_PATH, content=msgspec.json.encode(pins))
    assert msgspec.json.decode(said.content, type=PinnedAdapters).names == ("a",)
    await residency.load(ref("c"))
    assert engine.unloaded == ["b"], "though it was used last"
    uses = msgspec.json.decode((await client.get(USES_PATH)).content, type=AdapterUses)
    assert uses.pinned == ("a",)
    assert uses.rates["b"] == pytest.approx(2 * uses.rates["a"], rel=0.01)
