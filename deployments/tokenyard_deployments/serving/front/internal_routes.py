"""What the platform asks of a replica beside OpenAI's API; behind the bearer like everything else."""

from collections.abc import Callable
from typing import Protocol, TypeVar

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import Response

from tokenyard.core.adapters import AdapterRef
from tokenyard.core.errors import InvalidRequest
from tokenyard.core.replica import (
    CANARY_PATH,
    LOAD_PATH,
    PINS_PATH,
    STATS_PATH,
    UNLOAD_PATH,
    USES_PATH,
    AdapterUnload,
    AdapterUses,
    CanaryAnswer,
    CanaryRequest,
    PinnedAdapters,
    ReplicaLoad,
    ReplicaState,
    ResidentAdapters,
)
from tokenyard_deployments.serving.adapters.residency import Residency

Shape = TypeVar("Shape")
CANARY_CONTINUATION = " I am here to help you with that, and this is how it works: first, one, two, three."


class CanaryEngine(Protocol):
    """The engine, as far as the canary needs it."""

    async def continuation_logprobs(self, adapter: str | None, prompt: str, continuation: str) -> list[float]: ...


def internal_router(
    *, replica: str, model: str, engine: CanaryEngine, load: Callable[[], ReplicaLoad], residency: Residency
) -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.get(STATS_PATH)
    async def stats() -> Response:
        now = load()
        running = min(now.sequences, now.slots)
        waiting = now.sequences - running
        state = ReplicaState(replica, model, residency.names, running, waiting, now.slots, now.waiting_tokens)
        return _json(state)

    @router.post(LOAD_PATH)
    async def load_adapter(request: Request) -> Response:
        await residency.load(_read(await request.body(), AdapterRef))
        return _json(ResidentAdapters(residency.names))

    @router.post(UNLOAD_PATH)
    async def unload(request: Request) -> Response:
        await residency.unload(_read(await request.body(), AdapterUnload).name)
        return _json(ResidentAdapters(residency.names))

    @router.get(USES_PATH)
    async def uses() -> Response:
        return _json(AdapterUses(residency.rates.all(), residency.pinned, residency.capacity))

    @router.post(PINS_PATH)
    async def pin(request: Request) -> Response:
        residency.pin(_read(await request.body(), PinnedAdapters).names)
        return _json(PinnedAdapters(residency.pinned))

    @router.post(CANARY_PATH)
    async def canary(request: Request) -> Response:
        asked = _read(await request.body(), CanaryRequest)
        async with residency.keeping(asked.adapter):
            logprobs = await engine.continuation_logprobs(asked.adapter, asked.prompt, CANARY_CONTINUATION)
        return _json(CanaryAnswer(tuple(logprobs)))

    return router


def _json(content: msgspec.Struct) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json")


def _read(body: bytes, shape: type[Shape]) -> Shape:
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.MsgspecError as error:
        raise InvalidRequest(f"The body is not valid: {error}") from None
