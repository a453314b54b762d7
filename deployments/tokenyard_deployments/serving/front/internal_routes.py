"""What the platform asks of a replica beside OpenAI's API; behind the bearer like everything else."""

from typing import Protocol, TypeVar

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import Response

from tokenyard.core.adapters import AdapterRef
from tokenyard.core.errors import InvalidRequest
from tokenyard_deployments.serving.adapters.residency import Residency
from tokenyard_deployments.serving.front.slots import Slots

Shape = TypeVar("Shape")
CANARY_CONTINUATION = " I am here to help you with that, and this is how it works: first, one, two, three."


class Stats(msgspec.Struct, frozen=True):
    """The answer of `GET /internal/stats`."""

    replica: str
    model: str
    adapters: tuple[str, ...]
    running: int
    waiting: int
    slots: int


class UnloadRequest(msgspec.Struct, frozen=True):
    """The body of `POST /internal/adapters/unload`."""

    name: str


class CanaryRequest(msgspec.Struct, frozen=True):
    """The body of `POST /internal/canary`; without `adapter` the base model answers."""

    prompt: str
    adapter: str | None = None


class CanaryAnswer(msgspec.Struct, frozen=True):
    """Log-probabilities of the tokens of a fixed continuation of the prompt."""

    logprobs: list[float]


class CanaryEngine(Protocol):
    """The engine, as far as the canary needs it."""

    async def continuation_logprobs(self, adapter: str | None, prompt: str, continuation: str) -> list[float]: ...


def internal_router(
    *, replica: str, model: str, capacity: int, engine: CanaryEngine, slots: Slots, residency: Residency
) -> APIRouter:
    router = APIRouter(prefix="/internal", include_in_schema=False)

    @router.get("/stats")
    async def stats() -> Response:
        return _json(Stats(replica, model, residency.names, slots.running, slots.waiting, capacity))

    @router.post("/adapters/load")
    async def load(request: Request) -> Response:
        await residency.load(_read(await request.body(), AdapterRef))
        return _json({"adapters": residency.names})

    @router.post("/adapters/unload")
    async def unload(request: Request) -> Response:
        await residency.unload(_read(await request.body(), UnloadRequest).name)
        return _json({"adapters": residency.names})

    @router.post("/canary")
    async def canary(request: Request) -> Response:
        asked = _read(await request.body(), CanaryRequest)
        async with slots.hold():
            logprobs = await engine.continuation_logprobs(asked.adapter, asked.prompt, CANARY_CONTINUATION)
        return _json(CanaryAnswer(logprobs))

    return router


def _json(content: object) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json")


def _read(body: bytes, shape: type[Shape]) -> Shape:
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.MsgspecError as error:
        raise InvalidRequest(f"The body is not valid: {error}") from None
