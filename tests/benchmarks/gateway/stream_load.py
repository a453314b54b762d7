"""Reads many streams of events at once; each event's text is its number, so that a lost one is seen.

`python stream_load.py <url> <streams> <events> <header=value>... < body`. Prints JSON: streams that came whole, events
lost, and quantiles of the time between two events of a stream, in milliseconds.
"""

import asyncio
import json
import re
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from typing import cast
from urllib.parse import urlsplit

import httptools
import uvloop

_NUMBER = re.compile(rb'"content":\s?"(\d+) "')
LIMIT_S = 60.0  # beyond the time that the events take


@dataclass
class Tally:
    gaps_s: list[float] = field(default_factory=list)
    whole: int = 0
    lost: int = 0


class Stream(asyncio.Protocol):
    def __init__(self, request: bytes, events: int, tally: Tally, ended: asyncio.Future[None]) -> None:
        self._request = request
        self._events = events
        self._tally = tally
        self._ended = ended
        self._last = 0
        self._at: float | None = None
        self._done = False
        self._parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its class
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        now = time.perf_counter()
        for number in map(int, _NUMBER.findall(body)):
            self._tally.lost += number - self._last - 1
            self._last = number
            if self._at is not None:
                self._tally.gaps_s.append(now - self._at)
            self._at = now
        self._done = self._done or b"[DONE]" in body

    def on_message_complete(self) -> None:
        self._transport.close()

    def connection_lost(self, _error: Exception | None) -> None:
        self._tally.lost += self._events - self._last
        self._tally.whole += self._done and self._last == self._events
        if not self._ended.done():
            self._ended.set_result(None)


async def run(url: str, streams: int, events: int, headers: dict[str, str], body: bytes) -> dict[str, float]:
    parts = urlsplit(url)
    lines = [f"POST {parts.path} HTTP/1.1", f"host: {parts.netloc}", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    request = ("\r\n".join(lines) + "\r\n\r\n").encode() + body
    loop, tally, ends = asyncio.get_running_loop(), Tally(), []
    for _ in range(streams):
        ended: asyncio.Future[None] = loop.create_future()
        ends.append(ended)
        made = partial(Stream, request, events, tally, ended)
        await loop.create_connection(made, parts.hostname or "127.0.0.1", parts.port or 80)
    await asyncio.wait(ends, timeout=LIMIT_S + events / 50)
    gaps = sorted(tally.gaps_s)
    return {
        "whole": tally.whole,
        "lost": tally.lost,
        "gap_p50_ms": 1000 * gaps[len(gaps) // 2],
        "gap_p99_ms": 1000 * gaps[len(gaps) * 99 // 100],
    }


def main() -> None:
    url, streams, events, *pairs = sys.argv[1:]
    headers = dict(pair.split("=", 1) for pair in pairs)
    result = uvloop.run(run(url, int(streams), int(events), headers, sys.stdin.buffer.read()))
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main()
