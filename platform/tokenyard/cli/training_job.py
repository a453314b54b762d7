"""One fine-tuning job as its tenant sees it: upload, create, follow, cancel. Over HTTP only."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp

from tokenyard.cli.api import Api, ApiFailed

ENDED = ("succeeded", "failed", "cancelled")
POLL_S = 1.0
AWAY_LIMIT_S = 120.0
CANCEL_LIMIT_S = 60.0
UPLOAD_LIMIT_S = 3600.0
_JOBS = "/v1/fine_tuning/jobs"
_PAGE = 100


async def file_id(api: Api, key: str, given: str) -> str:
    """Return the id of a file: `given` itself where it is one, else that of the local file, uploaded.

    Raises:
        ApiFailed: there is no such file, or it was refused.
    """
    path = Path(given)
    if not await asyncio.to_thread(path.is_file):
        if given.startswith("file-"):
            return given
        raise ApiFailed(f"There is no file {given}, and it is not the id of an uploaded file.")
    timeout = aiohttp.ClientTimeout(total=UPLOAD_LIMIT_S, connect=10)
    headers = {"authorization": f"Bearer {key}"}
    with await asyncio.to_thread(path.open, "rb") as content:
        form = aiohttp.FormData()
        form.add_field("purpose", "fine-tune")
        form.add_field("file", content, filename=path.name, content_type="application/jsonl")
        try:
            async with (
                aiohttp.ClientSession(headers=headers, timeout=timeout) as http,
                http.post(f"{api.url}/v1/files", data=form) as reply,
            ):
                answer = await reply.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise ApiFailed(f"Uploading {path.name} to {api.url} failed ({type(error).__name__}).") from error
    if reply.status >= 400:
        raise ApiFailed(answer.get("error", {}).get("message", f"The server answered {reply.status}."), reply.status)
    return str(answer["id"])


class Following:
    """Prints a job's events as they come, until it ends."""

    def __init__(self, api: Api, job: str, tell: Callable[[dict[str, Any]], None]) -> None:
        self._api = api
        self._job = job
        self._tell = tell
        self._seen: set[str] = set()

    async def until_end(self) -> dict[str, Any]:
        """Return the ended job. The gateway may be away for AWAY_LIMIT_S at a time.

        Raises:
            ApiFailed: it is away for longer, or refuses.
        """
        answered = time.monotonic()
        while True:
            try:
                job = await self._once()
                answered = time.monotonic()
                if job["status"] in ENDED:
                    return job
            except ApiFailed as error:
                passing = error.status in (0, 429) or error.status >= 500
                if not passing or time.monotonic() - answered > AWAY_LIMIT_S:
                    raise
            await asyncio.sleep(POLL_S)

    async def cancel(self) -> dict[str, Any]:
        """Cancel the job and wait until it has ended.

        Raises:
            ApiFailed: refused (it may have ended before), or the gateway is away.
            TimeoutError: it did not end in CANCEL_LIMIT_S.
        """
        async with asyncio.timeout(CANCEL_LIMIT_S):
            try:
                await self._api.post(f"{_JOBS}/{self._job}/cancel")
            except ApiFailed as error:
                if error.status not in (400, 409):
                    raise
            return await self.until_end()

    async def _once(self) -> dict[str, Any]:
        job: dict[str, Any] = await self._api.get(f"{_JOBS}/{self._job}")
        for event in reversed(await self._new_events()):
            self._seen.add(event["id"])
            self._tell(event)
        return job

    async def _new_events(self) -> list[dict[str, Any]]:
        """Return the events that were not told yet, newest first, reading no further back than needed."""
        fresh: list[dict[str, Any]] = []
        after = None
        while True:
            page = await self._api.get(f"{_JOBS}/{self._job}/events", limit=_PAGE, after=after)
            new = [event for event in page["data"] if event["id"] not in self._seen]
            fresh += new
            if len(new) < len(page["data"]) or not page["has_more"] or not new:
                return fresh
            after = new[-1]["id"]


async def create(api: Api, body: dict[str, Any]) -> dict[str, Any]:
    """Create a job.

    Raises:
        ApiFailed: refused; the message says why.
    """
    job: dict[str, Any] = await api.post(_JOBS, body)
    return job
