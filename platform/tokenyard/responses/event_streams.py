"""Streams of the events of kept responses, also of those that are being made, by whichever process."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

from tokenyard.core.errors import NotFound, RateLimited
from tokenyard.core.ids import OrganizationId, ProjectId
from tokenyard.responses.ports import EventReplay
from tokenyard.responses.store import AnswerKind, AnswerStore, StoredAnswer
from tokenyard.responses.views import as_it_stands
from tokenyard.storage.outage import DatabaseDown

POLL_S = 0.5
FOLLOW_LIMIT_S = 900.0
MAX_STREAMS = 256
MAX_STREAMS_OF_ONE = 32
_BYTES_AT_ONCE = 16 * 1024


class ResponseStreams:
    """`replay` makes what tells the events behind a number."""

    def __init__(self, answers: AnswerStore, replay: Callable[[int], EventReplay]) -> None:
        self._answers = answers
        self._replay = replay
        self._open: Counter[OrganizationId] = Counter()

    async def open(
        self, organization: OrganizationId, project: ProjectId, response: str, *, after: int
    ) -> AsyncIterator[bytes]:
        """Return the events behind number `after`: what there is, and what comes until the response has ended.

        What is being made, and not as a stream, has nothing to tell until then. Of what was cancelled or deleted there
        is no last event.

        Raises:
            NotFound: no such response.
            RateLimited: too many of these are open.
        """
        answer = await self._answers.get(organization, project, AnswerKind.RESPONSE, response)
        if self._open[organization] >= MAX_STREAMS_OF_ONE or self._open.total() >= MAX_STREAMS:
            raise RateLimited("Too many streams of stored responses are open. Please try again shortly.")
        return self._events(organization, project, answer, self._replay(after))

    async def _events(
        self, organization: OrganizationId, project: ProjectId, answer: StoredAnswer, replay: EventReplay
    ) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        until = loop.time() + FOLLOW_LIMIT_S
        with self._counted(organization):
            while True:
                for events in _together(replay.more(as_it_stands(answer), answer.deltas)):
                    yield events
                    await asyncio.sleep(0)  # there may be very many
                if not answer.is_being_made or loop.time() > until:
                    return
                await asyncio.sleep(POLL_S)
                try:
                    answer = await self._answers.get(organization, project, AnswerKind.RESPONSE, answer.id)
                except NotFound:  # deleted
                    return
                except DatabaseDown:
                    continue

    @contextmanager
    def _counted(self, organization: OrganizationId) -> Iterator[None]:
        self._open[organization] += 1
        try:
            yield
        finally:
            self._open[organization] -= 1
            if not self._open[organization]:
                del self._open[organization]


def _together(events: Iterator[bytes]) -> Iterator[bytes]:
    """Yield many events at once where there are many."""
    held, size = list[bytes](), 0
    for event in events:
        held.append(event)
        size += len(event)
        if size >= _BYTES_AT_ONCE:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)
