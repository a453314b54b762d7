"""A model server that costs nothing: the same completion for every POST, or 50 events a second where a stream is asked.

`python canned_server.py <port>`; it must be many times faster than what is measured in front of it. A stream has as
many events as `max_tokens`, each with the usage so far, and the number of the event as its text.
"""

import asyncio
import itertools
import json
import sys
from functools import cache
from typing import cast

import httptools
import uvloop

EVENTS_PER_S = 50
# Streams are served in so many groups, one after the other, so that not all of their events come at once.
PHASES = 20
MODEL = "smollm2-135m-instruct"
_USAGE = {"prompt_tokens": 30, "completion_tokens": 3, "total_tokens": 33}
BODY = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": MODEL,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Paris."}, "finish_reason": "stop"}],
        "usage": _USAGE,
    }
).encode()
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class Ticker:
    """Gives each stream its events, one every 1 / `EVENTS_PER_S` seconds."""

    def __init__(self) -> None:
        self._phases: list[dict[Server, int]] = [{} for _ in range(PHASES)]
        self._next = itertools.cycle(range(PHASES))

    def add(self, stream: "Server") -> None:
        min(self._phases, key=len)[stream] = 0

    def drop(self, stream: "Server") -> None:
        for phase in self._phases:
            phase.pop(stream, None)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        step_s = 1 / EVENTS_PER_S / PHASES
        due = loop.time()
        while True:
            due += step_s
            await asyncio.sleep(max(0.0, due - loop.time()))
            phase = self._phases[next(self._next)]
            for stream, told in list(phase.items()):
                phase[stream] = told + 1
                if stream.tell(told + 1):
                    del phase[stream]


class Server(asyncio.Protocol):
    def __init__(self, ticker: Ticker) -> None:
        self._ticker = ticker

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its class
        self._parser = httptools.HttpRequestParser(self)
        self._body = b""
        self._tokens = 0

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if b'"stream":true' in self._body.replace(b" ", b""):
            self._tokens = json.loads(self._body)["max_tokens"]
            self._transport.write(STREAM)
            self._ticker.add(self)
        else:
            self._transport.write(ANSWER)
        self._body = b""

    def tell(self, number: int) -> bool:
        """Send event `number`; return whether it was the last one."""
        last = number == self._tokens
        self._transport.write(_event(number, last=last))
        return last

    def connection_lost(self, _error: Exception | None) -> None:
        self._ticker.drop(self)


@cache
def _event(number: int, *, last: bool) -> bytes:
    usage = {"prompt_tokens": 30, "completion_tokens": number, "total_tokens": 30 + number}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
    delta = {"index": 0, "delta": {"content": f"{number} "}, "finish_reason": "length" if last else None}
    events = [{**head, "choices": [delta], "usage": usage}]
    if last:
        events.append({**head, "choices": [], "usage": usage})
    text = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + ("data: [DONE]\n\n" if last else "")
    return b"%x\r\n%s\r\n" % (len(text), text.encode()) + (b"0\r\n\r\n" if last else b"")


async def serve(port: int) -> None:
    ticker = Ticker()
    server = await asyncio.get_running_loop().create_server(lambda: Server(ticker), "127.0.0.1", port, backlog=2048)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(ticker.run())
        tasks.create_task(server.serve_forever())


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
