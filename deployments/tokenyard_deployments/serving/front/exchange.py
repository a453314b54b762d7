"""What passes between client and engine for one request, and how we end it ourselves."""

import asyncio
from collections.abc import Callable

from starlette.types import Message, Receive, Send

from tokenyard.core.errors import TokenyardError, Unavailable
from tokenyard.core.replica import ENGINE_DEAD, LOAD_HEADER, ReplicaLoad

DEAD_RETRY_S = 5.0


def engine_dead() -> Unavailable:
    """Return the error of a replica whose engine has ended or hangs; others serve on, and this one is replaced."""
    return Unavailable("This server of the model has failed.", retry_after_s=DEAD_RETRY_S, code=ENGINE_DEAD)


class Exchange:
    """Gives the app the body again and passes its answer on, from the first byte of its body.

    Its head alone is held back: until there is more, an error may still be answered instead. It then says what `load`
    the replica is under at that moment.
    """

    def __init__(
        self, body: bytes, receive: Receive, send: Send, *, dead: Callable[[], bool], load: Callable[[], ReplicaLoad]
    ) -> None:
        self._body: bytes | None = body
        self._receive = receive
        self._send = send
        self._dead = dead
        self._load = load
        self._head: Message | None = None
        self._over = asyncio.Event()
        self.started = False
        self.complete = False
        self.error: TokenyardError | None = None
        """What ended it from our side."""

    def hang_up(self, error: TokenyardError) -> None:
        """End it: to the app it is as if the client had left, so that it stops what it does for it."""
        self.error = self.error or error
        self._over.set()

    async def receive(self) -> Message:
        """Give the body, then whatever comes after it."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        client, over = asyncio.ensure_future(self._receive()), asyncio.ensure_future(self._over.wait())
        try:
            await asyncio.wait((client, over), return_when=asyncio.FIRST_COMPLETED)
            return client.result() if client.done() else {"type": "http.disconnect"}
        finally:
            client.cancel()
            over.cancel()

    async def send(self, message: Message) -> None:
        """Pass a message of the app on, unless it comes too late, or is the last word of an engine that has ended."""
        if message["type"] == "http.response.start":
            self._head = message
            return
        last = not message.get("more_body", False)
        if not self.started and self.error is None and self._dead():
            self.error = engine_dead()
        if self.error is not None or not (message.get("body") or last):
            return
        if self._head is not None:
            head, self._head = self._head, None
            self.started = True
            told = (LOAD_HEADER.encode(), self._load().header())
            await self._send({**head, "headers": [*head.get("headers", ()), told]})
        await self._send(message)
        self.complete = self.complete or last
