"""A load generator: keep-alive connections that send one prepared HTTP request again and again.

It runs as its own process (`python load.py <url> <connections> <seconds> <rate, or 0> <header=value>... < body`),
because a client that shares the server's core measures itself. Prints JSON: requests a second, their statuses, and
quantiles of their latencies. At a rate, requests come by chance as those of many independent clients do (exponential
gaps): connections that all kept one beat would send in bursts. What a request waits for its turn to be sent is no part
of its latency.
"""

import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import cast
from urllib.parse import urlsplit

import httptools
import uvloop


@dataclass
class Tally:
    latencies_s: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)


class Connection(asyncio.Protocol):
    """Sends the next request when it is its turn and the last answer is complete."""

    def __init__(
        self, request: bytes, tally: Tally, deadline: float, gap_s: Callable[[], float], done: asyncio.Future[None]
    ) -> None:
        self._request = request
        self._tally = tally
        self._deadline = deadline
        self._gap_s = gap_s
        self._done = done
        self._turn = self._started = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its class
        self._turn = time.perf_counter()
        self._wait_for_turn()

    def _wait_for_turn(self) -> None:
        self._turn += self._gap_s()
        pause_s = max(0.0, self._turn - time.perf_counter())
        asyncio.get_running_loop().call_later(pause_s, self._send)

    def _send(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._started = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        now = time.perf_counter()
        self._tally.latencies_s.append(now - self._started)
        self._tally.statuses[str(self._parser.get_status_code())] += 1
        if now >= self._deadline:
            self._transport.close()
        else:
            self._wait_for_turn()

    def connection_lost(self, _error: Exception | None) -> None:
        if time.perf_counter() < self._deadline:
            self._tally.statuses["cut"] += 1
        if not self._done.done():
            self._done.set_result(None)


async def run(
    url: str, connections: int, seconds: float, rate: float, *, headers: dict[str, str], body: bytes
) -> dict[str, object]:
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    lines = [f"POST {parts.path} HTTP/1.1", f"host: {parts.netloc}", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    request = ("\r\n".join(lines) + "\r\n\r\n").encode() + body
    loop = asyncio.get_running_loop()
    tally = Tally()
    gap_s = partial(random.Random(1).expovariate, rate / connections) if rate else float  # float() is no gap
    started = time.perf_counter()
    ends: list[asyncio.Future[None]] = []
    for _ in range(connections):
        done: asyncio.Future[None] = loop.create_future()
        ends.append(done)
        made = partial(Connection, request, tally, started + seconds, gap_s, done)
        await loop.create_connection(made, parts.hostname or "127.0.0.1", parts.port or 80)
    await asyncio.wait_for(asyncio.gather(*ends), seconds + 30)
    elapsed = time.perf_counter() - started
    ordered = sorted(tally.latencies_s)
    return {
        "statuses": tally.statuses,
        "rps": len(ordered) / elapsed,
        "p50_ms": 1000 * ordered[len(ordered) // 2],
        "p99_ms": 1000 * ordered[len(ordered) * 99 // 100],
    }


def main() -> None:
    url, connections, seconds, rate, *pairs = sys.argv[1:]
    headers = dict(pair.split("=", 1) for pair in pairs)
    result = uvloop.run(
        run(url, int(connections), float(seconds), float(rate), headers=headers, body=sys.stdin.buffer.read())
    )
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main()
