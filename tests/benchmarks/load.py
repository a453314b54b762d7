"""A load generator: keep-alive connections that send one prepared HTTP request again and again.

It runs as its own process (`python load.py <url> <connections> <seconds> <header=value>... < body`), because a client
that shares the server's core measures itself. Prints JSON: requests, errors, seconds, latencies' quantiles.
"""

import asyncio
import json
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from typing import cast
from urllib.parse import urlsplit

import httptools
import uvloop


@dataclass
class Tally:
    latencies_s: list[float] = field(default_factory=list)
    errors: int = 0


class Connection(asyncio.Protocol):
    """Sends the next request as soon as the last answer is complete."""

    def __init__(self, request: bytes, tally: Tally, deadline: float, done: asyncio.Future[None]) -> None:
        self._request = request
        self._tally = tally
        self._deadline = deadline
        self._done = done
        self._started = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its class
        self._send()

    def _send(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._started = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        now = time.perf_counter()
        self._tally.latencies_s.append(now - self._started)
        if self._parser.get_status_code() != 200:
            self._tally.errors += 1
        if now >= self._deadline:
            self._transport.close()
        else:
            asyncio.get_running_loop().call_soon(self._send)

    def connection_lost(self, _error: Exception | None) -> None:
        if time.perf_counter() < self._deadline:
            self._tally.errors += 1
        if not self._done.done():
            self._done.set_result(None)


async def run(url: str, connections: int, seconds: float, headers: dict[str, str], body: bytes) -> dict[str, float]:
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    lines = [f"POST {parts.path} HTTP/1.1", f"host: {parts.netloc}", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    request = ("\r\n".join(lines) + "\r\n\r\n").encode() + body
    loop = asyncio.get_running_loop()
    tally = Tally()
    started = time.perf_counter()
    ends: list[asyncio.Future[None]] = []
    for _ in range(connections):
        done: asyncio.Future[None] = loop.create_future()
        ends.append(done)
        made = partial(Connection, request, tally, started + seconds, done)
        await loop.create_connection(made, parts.hostname or "127.0.0.1", parts.port or 80)
    await asyncio.wait_for(asyncio.gather(*ends), seconds + 30)
    elapsed = time.perf_counter() - started
    ordered = sorted(tally.latencies_s)
    return {
        "requests": len(ordered),
        "errors": tally.errors,
        "seconds": elapsed,
        "rps": len(ordered) / elapsed,
        "p50_ms": 1000 * ordered[len(ordered) // 2],
        "p99_ms": 1000 * ordered[len(ordered) * 99 // 100],
    }


def main() -> None:
    url, connections, seconds, *pairs = sys.argv[1:]
    headers = dict(pair.split("=", 1) for pair in pairs)
    result = uvloop.run(run(url, int(connections), float(seconds), headers, sys.stdin.buffer.read()))
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main()
