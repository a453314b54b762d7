"""A hostile client as a process of its own: `python -m support.attacks.attacker <url> <attack> <key>`.

It prints a line when all its connections have been made, attacks until its input ends, and prints an `AttackReport`.
"""

import asyncio
import json
import resource
import socket
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from typing import Any, cast
from urllib.parse import urlsplit

import httptools
import uvloop

from support.attacks.http_attack import KEY, AttackReport, HttpAttack
from support.attacks.table import ATTACKS

LIMIT_S = 30.0
AT_ONCE = 200  # connections being made: more would only wait in the kernel
PAUSE_S = 0.01
SMALL_BUFFER = 4096
MAX_PROBLEMS = 10


class HostileConnection(asyncio.Protocol):
    def __init__(
        self, attack: HttpAttack, requests: Iterator[bytes], report: AttackReport, ended: asyncio.Future[None]
    ) -> None:
        self._attack = attack
        self._requests = requests
        self._report = report
        self._ended = ended
        self._parser = httptools.HttpResponseParser(self)
        self._body = b""
        self._answers = 0
        self._sent = 0
        self._full = False
        self._request = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its class
        if not self._attack.reads:
            self._transport.pause_reading()
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        self._report.connections += 1
        self._send()

    def _send(self) -> None:
        self._answers = 0
        self._request = next(self._requests)
        self._write(self._request)
        if self._attack.more:
            self._send_more()

    def _send_more(self) -> None:
        while not (self._full or self._transport.is_closing()):
            if self._sent >= self._attack.limit_bytes:
                self._wrong(f"{self._sent} bytes were taken after {self._request[:100]!r}")
                self.end()
                return
            self._write(self._attack.more)
            self._sent += len(self._attack.more)
            if self._attack.every_s:
                asyncio.get_running_loop().call_later(self._attack.every_s, self._send_more)
                return

    def _write(self, data: bytes) -> None:
        self._report.sent_bytes += len(data)
        self._transport.write(data)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        if self._attack.more and not self._attack.every_s:
            self._send_more()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._wrong(f"no HTTP: {error!r} {data[:200]!r}")
            self.end()

    def on_message_begin(self) -> None:
        self._body = b""

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        self._report.answers[str(status)] = self._report.answers.get(str(status), 0) + 1
        problem = problem_of(status, self._body, self._attack)
        if problem is not None:
            self._wrong(f"{problem} to {self._request[:100]!r} ... {self._request[-100:]!r}")
        self._answers += 1
        if self._answers > self._attack.answers and not self._attack.more:
            self._wrong(f"{self._answers} answers to {self._request[:500]!r}")
        # Where the answer ends the connection, the next request is not for this one.
        if self._answers == self._attack.answers and not self._attack.more and self._parser.should_keep_alive():
            self._send()

    def connection_lost(self, _error: Exception | None) -> None:
        self._report.ended += 1
        if not self._ended.done():
            self._ended.set_result(None)

    def end(self) -> None:
        self._transport.abort()

    def _wrong(self, problem: str) -> None:
        if len(self._report.problems) < MAX_PROBLEMS:
            self._report.problems.append(problem)


def problem_of(status: int, body: bytes, attack: HttpAttack) -> str | None:
    """Return what is wrong with an answer: its status, or an error that is not told as an API of ours tells one."""
    if status not in attack.may_answer:
        return f"{status} {body[:300]!r}"
    if status < 400:
        return None
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return f"not an error in our shape: {status} {body[:300]!r}"
    return None if error["message"] and error["type"] else f"an error that says nothing: {error}"


class Attacker:
    def __init__(self, url: str, attack: HttpAttack, requests: Iterator[bytes], network: int) -> None:
        """Its addresses are `127.<network>.0.1` and those after it."""
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._attack = attack
        self._requests = requests
        self._network = network
        self._report = AttackReport()
        self._making = asyncio.Semaphore(AT_ONCE)
        self._made: set[int] = set()
        self.begun = asyncio.Event()

    async def run(self, over: asyncio.Event) -> AttackReport:
        """Attack until it is over."""
        slots = [asyncio.ensure_future(self._slot(number, over)) for number in range(self._attack.connections)]
        await over.wait()
        done, late = await asyncio.wait(slots, timeout=LIMIT_S)
        for slot in late:
            slot.cancel()
        for slot in done:
            slot.result()
        return self._report

    async def _slot(self, number: int, over: asyncio.Event) -> None:
        """Make one connection after the other."""
        at = number % self._attack.addresses
        address = f"127.{self._network}.{at // 250}.{at % 250 + 1}"
        while not over.is_set():
            ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            made = partial(HostileConnection, self._attack, self._requests, self._report, ended)
            try:
                async with self._making, asyncio.timeout(LIMIT_S):
                    connection = await self._connected(made, address)
            except OSError:  # the server's queue is full, or it has ended the connection already
                await asyncio.sleep(PAUSE_S)
                continue
            self._made.add(number)
            if len(self._made) == self._attack.connections:
                self.begun.set()
            waits = asyncio.ensure_future(over.wait())
            await asyncio.wait((ended, waits), return_when=asyncio.FIRST_COMPLETED)
            waits.cancel()
            connection.end()

    async def _connected(self, made: "partial[HostileConnection]", address: str) -> HostileConnection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(made, self._host, self._port, local_addr=(address, 0))
        return connection


def _description(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/openapi.json", timeout=LIMIT_S) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def _requests(attack: HttpAttack, description: dict[str, Any], key: str) -> Iterator[bytes]:
    while True:
        yield from (request.replace(KEY, key.encode()) for request in attack.requests(description))


async def run(url: str, name: str, key: str) -> None:
    attack = ATTACKS[name]
    network = 1 + list(ATTACKS).index(name)  # what one did is not held against another
    attacker = Attacker(url, attack, _requests(attack, _description(url), key), network)
    over = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, over.set)
    attacking = asyncio.ensure_future(attacker.run(over))
    async with asyncio.timeout(LIMIT_S):
        await attacker.begun.wait()
    _say("begun")
    _say(json.dumps(asdict(await attacking)))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    url, name, key = sys.argv[1:]
    uvloop.run(run(url, name, key))


if __name__ == "__main__":
    main()
