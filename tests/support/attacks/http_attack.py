"""What hostile clients do, as data: what each of their connections sends, and what it may be answered."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

REFUSED = frozenset({400, 401, 403, 404, 405, 408, 413, 414, 429, 431})
KEY = b"{key}"
"""Stands for the key of the attacker's own organization."""

Requests = Callable[[dict[str, Any]], Iterable[bytes]]
"""Returns what to send, given the description that the gateway serves of itself."""


@dataclass(frozen=True)
class HttpAttack:
    """Each connection sends one of `requests` after another; the next when all `answers` to the last have come.

    With `more`, it goes on sending that, every `every_s` seconds, until the server ends the connection or `limit_bytes`
    are sent. One that does not read leaves what it is answered where it is. `paid` says that requests are served, and
    cost money.
    """

    requests: Requests
    may_answer: frozenset[int] = REFUSED
    answers: int = 1
    more: bytes = b""
    every_s: float = 0.0
    limit_bytes: int = 100 * 1024 * 1024
    connections: int = 16
    addresses: int = 1
    reads: bool = True
    paid: bool = False


@dataclass
class AttackReport:
    """What came of an attack: answers by their status, connections made and lost, bytes sent, and what was wrong."""

    answers: dict[str, int] = field(default_factory=dict)
    connections: int = 0
    ended: int = 0
    sent_bytes: int = 0
    problems: list[str] = field(default_factory=list)
