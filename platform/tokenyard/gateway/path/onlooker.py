"""A client that looks on while its response is made in the background: it may leave, and nothing ends with it."""

import asyncio

from starlette.types import Message

from tokenyard.gateway.path.client import ClientConnection, Headers


class Onlooker:
    """Passes on to `client` what the background run is told to `send`."""

    def __init__(self, client: ClientConnection) -> None:
        self._client = client
        self._looks = asyncio.Event()
        self._left = False

    async def send(self, message: Message) -> None:
        if message["type"] != "http.response.body":
            return
        await self._looks.wait()
        if not self._left:
            await self._client.write(message["body"])

    async def look(self, headers: Headers, told: bytes, run: asyncio.Task[None]) -> None:
        """Tell the client what is `told` first, and then what the run says, to its end; raises `ClientLeft`."""
        try:
            with self._client.watched():
                await self._client.start(200, headers)
                await self._client.write(told)
                self._looks.set()
                await asyncio.wait({run})
                await self._client.finish()
        finally:
            self._left = True
            self._looks.set()
