"""The platform's HTTP API as the command line uses it: JSON in and out, errors as sentences."""

from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

import aiohttp
import msgspec

TIMEOUT_S = 60.0
MAX_PAGES = 1000


class ApiFailed(Exception):
    """The API refused or does not answer. `status` is 0 where nothing answered."""

    def __init__(self, message: str, status: int = 0, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Api:
    """One server and one key."""

    def __init__(self, url: str, key: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self.url = url.rstrip("/")
        self._key = key
        self._timeout_s = timeout_s
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {self._key}"}, timeout=aiohttp.ClientTimeout(total=self._timeout_s)
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._http is not None:
            await self._http.close()

    async def get(self, path: str, **query: object) -> Any:
        """Return the JSON answer of a GET; query values that are None are left out."""
        return await self._call("GET", path, query=query)

    async def post(self, path: str, body: Mapping[str, Any] | None = None, headers: Mapping[str, str] = {}) -> Any:
        return await self._call("POST", path, body=body or {}, headers=headers)

    async def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        return await self._call("PATCH", path, body=body)

    async def delete(self, path: str) -> Any:
        return await self._call("DELETE", path)

    async def every(self, path: str, **query: object) -> AsyncIterator[dict[str, Any]]:
        """Yield all items of a list, page after page."""
        after: object = None
        for _ in range(MAX_PAGES):
            page = await self.get(path, after=after, limit=100, **query)
            for item in page["data"]:
                yield item
            if not page.get("has_more") or not page["data"]:
                return
            after = page.get("last_id") or page["data"][-1]["id"]

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] = {},
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] = {},
    ) -> Any:
        assert self._http is not None, "used outside its block"
        given = {name: str(value) for name, value in query.items() if value is not None}
        url = f"{self.url}{path}" + (f"?{urlencode(given)}" if given else "")
        try:
            async with self._http.request(method, url, json=body, headers=dict(headers)) as reply:
                return _answer(reply.status, await reply.read())
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiFailed(
                f"The gateway at {self.url} does not answer ({type(error).__name__})."
                " Start it with `tokenyard up`, or say where it is with --url or TOKENYARD_URL."
            ) from error


def _answer(status: int, body: bytes) -> Any:
    try:
        answer = msgspec.json.decode(body) if body else {}
    except msgspec.DecodeError:
        raise ApiFailed(f"The server answered {status} with something that is not JSON.", status) from None
    if status < 400:
        return answer
    error = answer.get("error", {}) if isinstance(answer, dict) else {}
    raise ApiFailed(error.get("message") or f"The server answered {status}.", status, error.get("code"))
