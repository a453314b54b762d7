"""One server: requests, time limits, pages, and every failure as one exception."""

from collections.abc import AsyncIterator, Mapping
from typing import Self, TypeVar

import aiohttp
from pydantic import ValidationError

from tokenyard.clients.platform_api.shapes import ApiObject, ApiProblem, Listing

TIMEOUT_S = 60.0
CONNECT_TIMEOUT_S = 5.0
PAGE_SIZE = 100
MAX_PAGES = 1000

Result = TypeVar("Result", bound=ApiObject)
Query = Mapping[str, str | int | None]
Body = Mapping[str, object] | aiohttp.FormData


class ApiFailed(Exception):
    """The API refused or gave no answer. `status` is 0 where nothing answered; `code` is OpenAI's."""

    def __init__(self, message: str, status: int = 0, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status in (0, 429) or self.status >= 500


class ApiConnection:
    """Connections to one server, for any number of keys. Used as `async with`."""

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self.url = url.rstrip("/")
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_TIMEOUT_S)
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(timeout=self._timeout, cookie_jar=aiohttp.DummyCookieJar())
        return self

    async def __aexit__(self, *_raised: object) -> None:
        if self._http is not None:
            await self._http.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        key: str,
        query: Query,
        body: Body | None,
        timeout_s: float | None,
        headers: Mapping[str, str] = {},
    ) -> bytes:
        """Return the body of a good answer; any other, or none in time, raises `ApiFailed`."""
        assert self._http is not None, "used outside its block"
        form = isinstance(body, aiohttp.FormData)
        timeout = self._timeout
        if timeout_s is not None:
            timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_TIMEOUT_S)
        try:
            async with self._http.request(
                method,
                self.url + path,
                params={name: value for name, value in query.items() if value is not None},
                headers={"Authorization": f"Bearer {key}", **headers},
                json=None if form else body,
                data=body if form else None,
                timeout=timeout,
            ) as reply:
                content = await reply.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiFailed(f"The gateway at {self.url} does not answer ({type(error).__name__}).") from error
        if reply.status >= 400:
            raise _refusal(reply.status, content)
        return content


class ApiCaller:
    """A connection and a key: what the typed calls of operators and tenants are made of."""

    def __init__(self, connection: ApiConnection, key: str) -> None:
        self._connection = connection
        self._key = key

    async def call(
        self,
        kind: type[Result],
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: Body | None = None,
        timeout_s: float | None = None,
    ) -> Result:
        """Return an answer as a `kind`; one of a shape that we do not know raises `ApiFailed`, too."""
        content = await self._connection.request(
            method, path, key=self._key, query=query or {}, body=body, timeout_s=timeout_s
        )
        try:
            return kind.model_validate_json(content)
        except ValidationError as error:
            raise ApiFailed(f"The answer to {method} {path} is not understood: {_first(error)}", 502) from error

    async def content(self, path: str, *, timeout_s: float | None = None) -> bytes:
        """Return an answer that is no JSON, such as a file."""
        return await self._connection.request("GET", path, key=self._key, query={}, body=None, timeout_s=timeout_s)

    async def listing(self, kind: type[Result], path: str, **query: str | int | None) -> list[Result]:
        """Return the first (or only) page of a list."""
        page = await self.call(Listing, "GET", path, query=query)
        return [kind.model_validate(item) for item in page.data]

    async def every(self, kind: type[Result], path: str, *, limit: int = PAGE_SIZE) -> AsyncIterator[Result]:
        """Yield all items of a list, page after page of `limit`."""
        after: str | None = None
        for _ in range(MAX_PAGES):
            page = await self.call(Listing, "GET", path, query={"after": after, "limit": limit})
            for item in page.data:
                yield kind.model_validate(item)
            after = page.last_id
            if not page.has_more or after is None:
                return


def _refusal(status: int, content: bytes) -> ApiFailed:
    try:
        error = ApiProblem.model_validate_json(content).error
    except ValidationError:
        return ApiFailed(f"The server answered {status}.", status)
    return ApiFailed(error.message, status, error.code)


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
