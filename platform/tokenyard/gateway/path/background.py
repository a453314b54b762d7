"""Responses that are made after their client was answered: this process makes them, under a lease that others watch."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from typing import NamedTuple

from starlette.types import Message, Send

from tokenyard.core.errors import TokenyardError, Unavailable
from tokenyard.gateway.path.client import ClientConnection
from tokenyard.gateway.path.relay import Relay
from tokenyard.gateway.path.replies import answer_to
from tokenyard.gateway.path.resolve import ResolvedRequest
from tokenyard.gateway.path.settle import RequestSettlement
from tokenyard.gateway.ports import StoredAnswers

RENEWAL_S = 1.0
DRAIN_LIMIT_S = 10.0

_LOG = logging.getLogger(__name__)


class _Run(NamedTuple):
    """One response that is made."""

    settlement: RequestSettlement
    task: asyncio.Task[None]


class BackgroundRuns:
    """What has come of a response that is streamed is noted down now and then, for those who read its events.

    Of a process that is lost the leases end, and the worker says that its responses failed.

    A response that was cancelled or deleted, by whichever process, is no longer ours at the next renewal.
    """

    def __init__(self, relay: Relay, answers: StoredAnswers, *, renewal_s: float = RENEWAL_S) -> None:
        self._relay = relay
        self._answers = answers
        self._renewal_s = renewal_s
        self._runs: dict[str, _Run] = {}
        self._loops: dict[str, asyncio.Task[None]] = {}

    async def begin(
        self, request: ResolvedRequest, settlement: RequestSettlement, place: ExitStack, send: Send
    ) -> tuple[bytes, asyncio.Task[None]]:
        """Note the response down and begin to make it; return what its client is told first, and who makes it.

        What comes of it goes to `send`. `place` is given back after it.

        Raises:
            Unavailable: it cannot be noted down, and so it is not made.
        """
        claims = settlement.claims
        answer = answer_to(request, settlement)
        told, queued = answer.queued()
        await self._answers.begin(claims.organization, claims.project, queued)
        task = asyncio.create_task(self._run(request, settlement, place, nobody(send)))
        self._runs[queued.id] = _Run(settlement, task)
        task.add_done_callback(lambda _done: self._runs.pop(queued.id))
        self._keep_going(self._renew)
        self._keep_going(self._note)
        return told, task

    def _keep_going(self, loop: Callable[[], Coroutine[None, None, None]]) -> None:
        """Begin a loop, which goes on while there are responses to make."""
        running = self._loops.get(loop.__name__)
        if running is None or running.done():
            self._loops[loop.__name__] = asyncio.create_task(loop())

    async def close(self) -> None:
        """Give what is under way some time; what is left fails, and is charged as the replica reports it."""
        runs = {run.task for run in self._runs.values()}
        if runs:
            _, left = await asyncio.wait(runs, timeout=DRAIN_LIMIT_S)
            for task in left:
                task.cancel()
            if left:
                await asyncio.wait(left, timeout=DRAIN_LIMIT_S)
        for loop in self._loops.values():
            loop.cancel()
        if self._loops:
            await asyncio.wait(self._loops.values())

    async def _run(
        self, request: ResolvedRequest, settlement: RequestSettlement, place: ExitStack, client: ClientConnection
    ) -> None:
        with place:
            try:
                with settlement:
                    await self._relay.run(request, client, settlement)
            except TokenyardError as error:
                await self._failed(request, settlement, client, error)
            except Exception:  # the last resort of this path, too
                _LOG.exception("attempt %s failed in the background", settlement.claims.attempt)
                unforeseen = TokenyardError("The server had an error while processing your request.")
                await self._failed(request, settlement, client, unforeseen)

    async def _failed(
        self, request: ResolvedRequest, settlement: RequestSettlement, client: ClientConnection, error: TokenyardError
    ) -> None:
        settlement.telemetry.refused(error)
        answer = answer_to(request, settlement)
        event = answer.failed(error)
        await settlement.keep(answer)
        if not client.started:
            await client.finish(event)

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
                    run.task.cancel()
            await asyncio.sleep(self._renewal_s)

    async def _note(self) -> None:
        """Apart from the renewals, which must not wait for it."""
        while self._runs:
            for settlement, _ in list(self._runs.values()):
                claims, answer = settlement.claims, settlement.answer
                so_far = None if answer is None else answer.so_far()
                if so_far is not None:
                    await self._answers.note(claims.organization, claims.project, so_far)
            await asyncio.sleep(self._renewal_s)


def nobody(send: Send) -> ClientConnection:
    """Return a client that never leaves; what it is sent goes to `send`."""

    async def receive() -> Message:
        left: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        return await left

    return ClientConnection({"headers": [], "client": None}, receive, send)


async def unheard(_message: Message) -> None:
    """Send it to nobody."""
