"""Ray's Jobs API over HTTP: submits training attempts and follows them. Imports no Ray."""

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec

from tokenyard.core.errors import Unavailable
from tokenyard.core.training import RunState, RunStatus

STOP_WAIT_S = 30  # Ray's own 3 s would kill an attempt before it has written its result
MAX_LOG_BYTES = 64 * 1024 * 1024
_TIMEOUT = aiohttp.ClientTimeout(total=30, connect=5)
_RETRY_AFTER_S = 5.0
_SHOWN_BYTES = 1000
_LOG = logging.getLogger(__name__)


class _JobDetails(msgspec.Struct):
    status: str
    message: str | None = None


class RayJobs:
    """One cluster's jobs, over the caller's session. Every call raises `Unavailable` where Ray does not answer."""

    def __init__(self, session: aiohttp.ClientSession, url: str, token_file: Path | None = None) -> None:
        """Take the URL of Ray's dashboard and the file with its token, which is read at every call: it may change."""
        self._session = session
        self._jobs = f"{url.rstrip('/')}/api/jobs/"
        self._token_file = token_file

    async def submit(self, submission_id: str, entrypoint: str, *, metadata: Mapping[str, str]) -> None:
        """Start a job; submitting an id again changes nothing. Where it raises, the job may have been started."""
        if await self.status(submission_id) is not None:  # Ray answers 500 to an id that it knows
            return
        body = {
            "submission_id": submission_id,
            "entrypoint": entrypoint,
            "metadata": dict(metadata),
            "runtime_env": {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)}},
        }
        code, answer = await self._call("POST", "", body)
        if code >= 400 and await self.status(submission_id) is None:
            reason = answer[-_SHOWN_BYTES:].decode(errors="replace")
            _LOG.warning("Ray refused %s with HTTP %d: %s", submission_id, code, reason)
            raise _unavailable(f"refused the job with HTTP {code}")

    async def status(self, submission_id: str) -> RunStatus | None:
        """Return how a job is, or None where Ray does not know it (any more)."""
        data = await self._known("GET", submission_id)
        if data is None:
            return None
        try:
            details = msgspec.json.decode(data, type=_JobDetails)
            return RunStatus(RunState(details.status.lower()), details.message or "")
        except (msgspec.MsgspecError, ValueError):
            raise _unavailable("gave an answer that cannot be read") from None

    async def stop(self, submission_id: str) -> None:
        """Ask a job to stop; fine where it does not run."""
        await self._known("POST", f"{submission_id}/stop")

    async def logs(self, submission_id: str) -> str | None:
        """Return what a job has printed, or None where Ray does not know it. For the operator only."""
        data = await self._known("GET", f"{submission_id}/logs")
        return None if data is None else msgspec.json.decode(data, type=dict[str, str]).get("logs", "")

    async def _known(self, method: str, path: str) -> bytes | None:
        code, data = await self._call(method, path)
        if code >= 400 and code != 404:
            raise _unavailable(f"answered HTTP {code}")
        return None if code == 404 else data

    async def _call(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        url = self._jobs + quote(path)
        headers = await self._headers()
        try:
            async with self._session.request(method, url, json=body, headers=headers, timeout=_TIMEOUT) as reply:
                return reply.status, await _bounded(reply)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _unavailable(f"does not answer ({type(error).__name__})") from error

    async def _headers(self) -> dict[str, str]:
        if self._token_file is None:
            return {}
        try:
            token = (await asyncio.to_thread(self._token_file.read_text)).strip()
        except FileNotFoundError:
            return {}
        return {"authorization": f"Bearer {token}"} if token else {}


async def _bounded(reply: aiohttp.ClientResponse) -> bytes:
    data = bytearray()
    async for chunk in reply.content.iter_chunked(1 << 16):
        data += chunk
        if len(data) > MAX_LOG_BYTES:
            raise _unavailable("gave an answer that is too long")
    return bytes(data)


def _unavailable(what: str) -> Unavailable:
    return Unavailable(f"The training cluster {what}.", retry_after_s=_RETRY_AFTER_S, code="training_unavailable")
