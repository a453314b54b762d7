"""Sends fuzz cases as one organization's clients would, and judges each answer by itself."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from aiohttp import ClientError, ClientResponse, ClientSession

from support.fuzz.cases import FuzzCase

DATA = b"data: "
# Of 5xx ours to give: the model is overloaded, with a time to come back; and a request that breaks what serves it.
OVERLOADED, POISON = 503, 500
REFUSED = range(400, 500)


@dataclass(frozen=True)
class FuzzAnswer:
    """What came back. `status` is None where the client left first; `problem` says what no client should ever see."""

    case: FuzzCase
    status: int | None
    request: str | None = None
    problem: str | None = None

    @property
    def refused(self) -> bool:
        """Whether the request must cost nothing."""
        return self.status is not None and self.status != 200

    def __str__(self) -> str:
        return f"{self.problem} ({self.status}, {self.request}): {self.case}"


class Attack:
    """Clients of one organization that send one case after another."""

    def __init__(self, http: ClientSession, url: str, key: str, cases: Iterator[FuzzCase]) -> None:
        self.answers: list[FuzzAnswer] = []
        self._http = http
        self._url = url
        self._headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        self._cases = cases

    async def run(self, clients: int) -> None:
        """Send all cases, by so many clients at once."""
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(self._client())

    async def _client(self) -> None:
        for case in self._cases:
            self.answers.append(await self._send(case))

    async def _send(self, case: FuzzCase) -> FuzzAnswer:
        try:
            async with (
                asyncio.timeout(case.patience_s),
                self._http.post(self._url + case.path, data=BytesIO(case.body), headers=self._headers) as response,
            ):
                request = response.headers.get("x-request-id")
                return FuzzAnswer(case, response.status, request, problem_of(response, await response.read()))
        except TimeoutError:
            return FuzzAnswer(case, None)
        except ClientError as error:
            return FuzzAnswer(case, None, problem=f"the connection broke: {error!r}")


def problem_of(response: ClientResponse, body: bytes) -> str | None:
    """Return what is wrong with an answer as such: its status, or a shape that is not OpenAI's."""
    status, kind = response.status, response.content_type
    if status == OVERLOADED and "retry-after" not in response.headers:
        return "overloaded without a time to come back"
    if status not in (200, OVERLOADED, POISON, *REFUSED):
        return f"a status that is not ours to give: {body[:300]!r}"
    if status == 200 and kind == "text/event-stream":
        return _problem_of_events(body)
    try:
        answer = json.loads(body)
    except ValueError:
        return f"no JSON: {body[:300]!r}"
    if status == 200:
        return None if "choices" in answer and "usage" in answer else f"not an answer: {body[:300]!r}"
    return _problem_of_error(answer, status)


def _problem_of_events(body: bytes) -> str | None:
    events = [line.removeprefix(DATA) for line in body.split(b"\n\n") if line]
    if not events:
        return "a stream without any event"
    if events[-1] != b"[DONE]":
        return f"a stream that was cut off: {events[-1][:300]!r}"
    return next((f"an error within: {event[:300]!r}" for event in events[:-1] if b"choices" not in event), None)


def _problem_of_error(answer: Any, status: int) -> str | None:
    error = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(error, dict) or set(error) != {"message", "type", "param", "code"}:
        return f"not OpenAI's error: {answer!r}"
    if not (error["message"] and isinstance(error["message"], str)) or not isinstance(error["type"], str):
        return f"an error that says nothing: {answer!r}"
    server_error = status >= OVERLOADED or status == POISON
    return (
        f"a type that does not fit {status}: {answer!r}" if server_error != (error["type"] == "server_error") else None
    )
