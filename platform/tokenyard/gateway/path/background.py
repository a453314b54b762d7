"""Responses that are made after their client was answered: this process makes them, under a lease that others watch."""

import asyncio
import logging
from contextlib import ExitStack

from starlette.types import Message

from tokenyard.core.errors import TokenyardError, Unavailable
from tokenyard.gateway.path.client import ClientConnection
from tokenyard.gateway.path.relay import Relay
from tokenyard.gateway.path.replies import answer_to
from tokenyard.gateway.path.resolve import ResolvedRequest
from tokenyard.gateway.path.settle import RequestSettlement
from tokenyard.gateway.ports import StoredAnswers

RENEWAL_S = 2.0
DRAIN_LIMIT_S = 10.0

_LOG = logging.getLogger(__name__)


class BackgroundRuns:
    """Of a process that is lost the leases end, and the worker says that its responses failed.

    A response that was cancelled or deleted, by whichever process, is no longer ours at the next renewal.
    """

    def __init__(self, relay: Relay, answers: StoredAnswers, *, renewal_s: float = RENEWAL_S) -> None:
        self._relay = relay
        self._answers = answers
        self._renewal_s = renewal_s
        self._runs: dict[str, asyncio.Task[None]] = {}
        self._renewing: asyncio.Task[None] | None = None

    async def begin(self, request: ResolvedRequest, settlement: RequestSettlement, place: ExitStack) -> bytes:
        """Note the response down and begin to make it; return what its client is told. `place` is given back after it.

        Raises:
            Unavailable: it cannot be noted down, and so it is not made.
        """
        claims = settlement.claims
        answer = answer_to(request, settlement)
        told, queued = answer.queued()
        await self._answers.begin(claims.organization, claims.project, queued)
        run = asyncio.create_task(self._run(request, settlement, place))
        self._runs[queued.id] = run
        run.add_done_callback(lambda _done: self._runs.pop(queued.id))
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.create_task(self._renew())
        return told

    async def close(self) -> None:
        """Give what is under way some time; what is left fails, and is charged as the replica reports it."""
        runs = set(self._runs.values())
        if runs:
            _, left = await asyncio.wait(runs, timeout=DRAIN_LIMIT_S)
            for run in left:
                run.cancel()
            if left:
                await asyncio.wait(left, timeout=DRAIN_LIMIT_S)
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait({self._renewing})

    async def _run(self, request: ResolvedRequest, settlement: RequestSettlement, place: ExitStack) -> None:
        with place:
            try:
                async with settlement:
                    await self._relay.run(request, nobody(), settlement)
            except TokenyardError as error:
                await self._failed(request, settlement, error)
            except Exception:  # the last resort of this path, too
                _LOG.exception("attempt %s failed in the background", settlement.claims.attempt)
                unforeseen = TokenyardError("The server had an error while processing your request.")
                await self._failed(request, settlement, unforeseen)

    async def _failed(self, request: ResolvedRequest, settlement: RequestSettlement, error: TokenyardError) -> None:
        settlement.telemetry.refused(error)
        answer = answer_to(request, settlement)
        answer.failed(error)
        await settlement.keep(answer)

    async def _renew(self) -> None:
        while self._runs:
            asked = dict(self._runs)
            try:
                ours = await self._answers.renew(list(asked))
            except Unavailable as error:
                _LOG.warning("the leases of %d responses could not be renewed: %s", len(asked), error)
                ours = asked.keys()
            for response, run in asked.items():
                if response not in ours:
                    run.cancel()
            await asyncio.sleep(self._renewal_s)


def nobody() -> ClientConnection:
    """Return a client that takes everything and never leaves."""

    async def receive() -> Message:
        left: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        return await left

    async def send(_message: Message) -> None:
        pass

    return ClientConnection({"headers": [], "client": None}, receive, send)
