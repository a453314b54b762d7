"""Ends connections that take too long, with one timer for all, and none while nobody is late with anything.

And lets those wait that go on sending what nobody wants.
"""

import asyncio
import socket
import sys
from itertools import islice
from typing import Protocol

SWEEP_S = 0.5
LOOKED_AT = 64  # of thousands, whenever one comes
# Thousands that came together are late together, and nobody else is served while they are told.
ENDED_AT_ONCE, SOON_S = 16, 0.05


class TimedConnection(Protocol):
    """A connection that is to send something, or to take what it was sent."""

    @property
    def held_up_by_us(self) -> bool: ...

    def may_wait_s(self) -> float:
        """Return how long what it is to send now may take."""
        ...

    def out_of_time(self) -> None: ...

    def abort(self) -> None: ...


class ConnectionClocks:
    def __init__(self, *, stalled_s: float) -> None:
        """Take how long a client may take nothing of what it is sent."""
        self._stalled_s = stalled_s
        self._sending: dict[TimedConnection, float] = {}  # since when
        self._taking: dict[TimedConnection, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._swept_at = 0.0

    @property
    def idle(self) -> bool:
        return self._timer is None

    def sends(self, connection: TimedConnection) -> None:
        """It is to send something, and has not sent all of it; a clock that runs goes on."""
        self._sending.setdefault(connection, self._now())

    def sent(self, connection: TimedConnection) -> None:
        """That has come; what comes next has a clock of its own."""
        self._sending.pop(connection, None)

    def end_slowest(self) -> bool:
        """End, of some that have let us wait long, the one whose time is up first; tell whether there was one.

        Who sends for long at a fair pace has much time left.
        """
        late = [one for one in islice(self._sending, LOOKED_AT) if not one.held_up_by_us]
        if not late:
            return False
        slowest = min(late, key=lambda one: self._sending[one] + one.may_wait_s())
        del self._sending[slowest]
        slowest.out_of_time()
        return True

    def stalls(self, connection: TimedConnection) -> None:
        self._taking[connection] = self._now()

    def takes(self, connection: TimedConnection) -> None:
        self._taking.pop(connection, None)

    def forget(self, connection: TimedConnection) -> None:
        self._sending.pop(connection, None)
        self._taking.pop(connection, None)

    def _now(self) -> float:
        loop = asyncio.get_running_loop()
        if self._timer is None:
            self._swept_at = loop.time()
            self._timer = loop.call_later(SWEEP_S, self._sweep)
        return loop.time()

    def _sweep(self) -> None:
        now = asyncio.get_running_loop().time()
        passed_s, self._swept_at = now - self._swept_at, now
        late = 0
        for connection, since in list(self._sending.items()):
            if connection.held_up_by_us:
                self._sending[connection] = since + passed_s
            elif now - since > connection.may_wait_s():
                late += 1
                if late <= ENDED_AT_ONCE:
                    del self._sending[connection]
                    connection.out_of_time()
        for connection, since in list(self._taking.items()):
            if now - since > self._stalled_s:
                del self._taking[connection]
                connection.abort()
        self._timer = None
        if self._sending or self._taking:
            again_s = SOON_S if late > ENDED_AT_ONCE else SWEEP_S
            self._timer = asyncio.get_running_loop().call_later(again_s, self._sweep)


class UnwantedBytes:
    """Of a body whose answer is out already the rest is read, at a small rate that all connections share.

    To end such a connection at once could cost its client the answer; to read on would leave us time for nothing else.
    """

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._free_at = 0.0

    def came(self, transport: asyncio.Transport, size: int) -> None:
        """So many bytes came: read more from there when it is its turn."""
        loop = asyncio.get_running_loop()
        self._free_at = max(loop.time(), self._free_at) + size / self._per_s
        transport.pause_reading()
        loop.call_at(self._free_at, _read_on, transport)


def _read_on(transport: asyncio.Transport) -> None:
    if not transport.is_closing():
        transport.resume_reading()


def end_who_takes_nothing(connection: socket.socket, after_s: float) -> None:
    """Leave to the kernel what is written and not taken, also where it is too little to pause writing, or we closed."""
    if sys.platform == "linux" and connection.family in (socket.AF_INET, socket.AF_INET6):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(after_s * 1000))
