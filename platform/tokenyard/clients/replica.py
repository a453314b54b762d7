"""The internal routes of replicas: what they hold and do, adapters in and out, and the canary."""

from collections.abc import Sequence
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec

from tokenyard.clients.bearer_session import LOSSES, BearerSession
from tokenyard.core.adapters import AdapterRef
from tokenyard.core.errors import ErrorBody, ErrorDetail
from tokenyard.core.replica import (
    ADAPTER_UNFIT,
    CANARY_PATH,
    LOAD_PATH,
    PINS_PATH,
    STATS_PATH,
    UNLOAD_PATH,
    USES_PATH,
    AdapterRefused,
    AdapterUnfit,
    AdapterUnload,
    AdapterUses,
    CanaryAnswer,
    CanaryRequest,
    PinnedAdapters,
    Replica,
    ReplicaLost,
    ReplicaState,
)

# A load brings the files from the blob store and waits for room; a canary waits for a slot.
ANSWER_TIMEOUT_S = 180.0
# On a replica's own port it says 503 from the moment that Serve stops it, or finds it ill.
_SERVE_HEALTH_PATH = "/-/healthz"

Shape = TypeVar("Shape")


class ReplicaClient(BearerSession):
    """Used as `async with`. Every call raises `ReplicaLost` where a replica does not answer, or its engine is gone."""

    def __init__(self, bearer: str) -> None:
        super().__init__(bearer, answer_timeout_s=ANSWER_TIMEOUT_S)

    async def stats(self, target: Replica) -> ReplicaState:
        return await self._get(target, STATS_PATH, ReplicaState)

    async def uses(self, replica: Replica) -> AdapterUses:
        return await self._get(replica, USES_PATH, AdapterUses)

    async def serves(self, target: Replica) -> bool:
        """Tell whether Serve sends it requests, as Serve's own route beside the replica's says."""
        parts = urlsplit(target.url)
        status, _ = await self._call("GET", f"{parts.scheme}://{parts.netloc}", _SERVE_HEALTH_PATH)
        return status == 200

    async def load(self, replica: Replica, adapter: AdapterRef) -> None:
        """Load an adapter; one that is loaded already is fine.

        Raises:
            AdapterUnfit: it can never be loaded.
            AdapterRefused: not now, maybe for lack of room.
        """
        await self._post(replica.url, LOAD_PATH, adapter)

    async def unload(self, replica: Replica, name: str) -> None:
        """Unload an adapter, or raise `AdapterRefused` while requests use it; one that is not loaded is fine."""
        await self._post(replica.url, UNLOAD_PATH, AdapterUnload(name))

    async def pin(self, replica: Replica, names: Sequence[str]) -> None:
        """Let these adapters make room for no other, and no others."""
        await self._post(replica.url, PINS_PATH, PinnedAdapters(tuple(names)))

    async def canary(self, url: str, adapter: str | None, prompt: str) -> Sequence[float]:
        """Return the log-probabilities of a fixed continuation of `prompt`, from a loaded adapter or from the base."""
        body = await self._post(url, CANARY_PATH, CanaryRequest(prompt, adapter))
        return _decoded(body, CanaryAnswer).logprobs

    async def _get(self, replica: Replica, path: str, shape: type[Shape]) -> Shape:
        status, body = await self._call("GET", replica.url, path)
        if status != 200:
            raise ReplicaLost(f"{replica.name} answered {status}")
        return _decoded(body, shape)

    async def _post(self, url: str, path: str, content: msgspec.Struct) -> bytes:
        status, body = await self._call("POST", url, path, msgspec.json.encode(content))
        if status == 200:
            return body
        error = _error(body)
        if status in (500, 502):
            raise ReplicaLost(f"the replica failed: {error.message if error is not None else status}")
        refused = AdapterUnfit if error is not None and error.code == ADAPTER_UNFIT else AdapterRefused
        raise refused(error.message if error is not None else f"the replica answered {status}")

    async def _call(self, method: str, url: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        try:
            async with self.session.request(method, url + path, data=body, allow_redirects=False) as response:
                return response.status, await response.read()
        except LOSSES as error:
            raise ReplicaLost(f"{type(error).__name__}: {error}") from error


def _decoded(body: bytes, shape: type[Shape]) -> Shape:
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.MsgspecError as error:
        raise ReplicaLost(f"the replica's answer cannot be read: {error}") from error


def _error(body: bytes) -> ErrorDetail | None:
    try:
        return msgspec.json.decode(body, type=ErrorBody).error
    except msgspec.MsgspecError:
        return None
