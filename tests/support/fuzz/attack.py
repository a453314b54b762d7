"""Sends fuzz cases as one organization's clients would, and judges each answer by itself."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

from aiohttp import ClientError, ClientSession

from support.fuzz.answer_shapes import problem_of
from support.fuzz.cases import FuzzCase


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
                headers = {name.lower(): value for name, value in response.headers.items()}
                problem = problem_of(case.path, response.status, headers, await response.read())
                return FuzzAnswer(case, response.status, headers.get("x-request-id"), problem)
        except TimeoutError:
            return FuzzAnswer(case, None)
        except ClientError as error:
            return FuzzAnswer(case, None, problem=f"the connection broke: {error!r}")
