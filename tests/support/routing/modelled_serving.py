"""A model of gateways and replicas in simulated time: what a choice of replicas does to caches, queues and waits.

A replica computes one prompt after another at a constant speed, generates all its sequences at another, and keeps the
prefixes and adapters that it used last. Real engines batch, and are measured elsewhere.
"""

import heapq
import itertools
import random
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Protocol

from support.fakes.gateway_ports import BASE, KnownReplicas
from support.routing.routed_requests import routed
from tokenyard.core.replica import Replica, ReplicaLoad
from tokenyard.gateway.path.route import ReplicaRouter, Route, RoutedRequest

LOOK_EVERY_S = 1.0
POLL_S = 0.5
NETWORK_S = 0.001


@dataclass(frozen=True)
class Machine:
    """How fast a replica is, and how much it keeps."""

    slots: int = 32
    prompt_tokens_per_s: float = 4000
    token_s: float = 0.02
    cached_tokens: int = 16_000
    adapters: int = 8
    load_adapter_s: float = 0.5


@dataclass(frozen=True)
class Asked:
    """A request: its first `prefix_tokens` are those of `prefix`, which others of its organization begin with, too."""

    at_s: float
    gateway: int
    request: RoutedRequest
    prefix: Hashable
    prefix_tokens: int
    answer_tokens: int


@dataclass
class Measured:
    """`busiest` are the most sequences at one replica over the mean, looked at in equal steps of time."""

    waits_s: list[float] = field(default_factory=list)
    prompt_tokens: int = 0
    cached_tokens: int = 0
    adapters_loaded: int = 0
    busiest: list[float] = field(default_factory=list)

    @property
    def hit_rate(self) -> float:
        return self.cached_tokens / self.prompt_tokens

    def wait_s(self, share: float) -> float:
        return sorted(self.waits_s)[int(share * (len(self.waits_s) - 1))]

    @property
    def max_over_mean(self) -> float:
        return sum(self.busiest) / len(self.busiest)


class Policy(Protocol):
    """How one gateway chooses."""

    def pick(self, request: RoutedRequest) -> "Way": ...


class Way(Protocol):
    """Where a request goes, and what comes of it."""

    replica: Replica

    def __enter__(self) -> object: ...

    def __exit__(self, *raised: object) -> None: ...

    def began(self, load: ReplicaLoad | None) -> None: ...

    def made(self, completion_tokens: int) -> None: ...


class _Kept:
    """What was used last, up to a bound."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._sizes: OrderedDict[Hashable, int] = OrderedDict()

    def use(self, what: Hashable, size: int = 1) -> bool:
        """Return whether it was there."""
        there = what in self._sizes
        self._sizes[what] = size
        self._sizes.move_to_end(what)
        while sum(self._sizes.values()) > self._bound:
            self._sizes.popitem(last=False)
        return there

    def names(self) -> tuple[str, ...]:
        return tuple(str(one) for one in self._sizes)


class _ModelledReplica:
    def __init__(self, name: str, machine: Machine, world: "World") -> None:
        self.name = name
        self._machine = machine
        self._world = world
        self._prefixes = _Kept(machine.cached_tokens)
        self._adapters = _Kept(machine.adapters)
        self._queue: deque[tuple[Asked, Way, ExitStack]] = deque()
        self._running = 0
        self._computes_until = 0.0
        self._waiting_tokens = 0

    @property
    def load(self) -> ReplicaLoad:
        return ReplicaLoad(self._running + len(self._queue), self._machine.slots, self._waiting_tokens)

    def listed(self) -> Replica:
        load = self.load
        running = min(load.sequences, load.slots)
        waiting = load.sequences - running
        url = f"http://{self.name}"
        held = self._adapters.names()
        return Replica(self.name, BASE.id, url, held, running, waiting, load.slots, load.waiting_tokens)

    def take(self, asked: Asked, way: Way, under_way: ExitStack) -> None:
        """Load the adapter first, meanwhile others go on; then wait for a slot."""

        def enter() -> None:
            self._waiting_tokens += asked.request.prompt_tokens
            self._queue.append((asked, way, under_way))
            self._start()

        if asked.request.adapter is None or self._adapters.use(asked.request.adapter):
            enter()
        else:
            self._world.measured.adapters_loaded += 1
            self._world.at(self._world.now + self._machine.load_adapter_s, enter)

    def _start(self) -> None:
        while self._queue and self._running < self._machine.slots:
            self._running += 1
            self._run(*self._queue.popleft())

    def _run(self, asked: Asked, way: Way, under_way: ExitStack) -> None:
        world, machine, prompt = self._world, self._machine, asked.request.prompt_tokens
        cached = asked.prefix_tokens if self._prefixes.use(asked.prefix, asked.prefix_tokens) else 0
        begin = max(world.now, self._computes_until)
        self._waiting_tokens -= cached
        world.measured.prompt_tokens += prompt
        world.measured.cached_tokens += cached
        first = begin + (prompt - cached) / machine.prompt_tokens_per_s
        self._computes_until = first

        def first_token() -> None:
            self._waiting_tokens -= prompt - cached
            world.measured.waits_s.append(world.now - asked.at_s)
            load = self.load
            world.at(world.now + NETWORK_S, lambda: way.began(load))

        def end() -> None:
            self._running -= 1
            self._start()
            way.made(asked.answer_tokens)
            under_way.close()

        world.at(first, first_token)
        world.at(first + asked.answer_tokens * machine.token_s, end)


class World:
    """Simulated time. `policy` makes what a gateway chooses by, of the list that it reads and the clock."""

    def __init__(
        self,
        machine: Machine,
        replicas: int,
        gateways: int,
        policy: Callable[[KnownReplicas, Callable[[], float]], Policy],
        chance: random.Random,
    ) -> None:
        self.now = 0.0
        self.measured = Measured()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._chance = chance
        self._replicas = {f"r{at}": _ModelledReplica(f"r{at}", machine, self) for at in range(replicas)}
        self._lists = [KnownReplicas([one.listed() for one in self._replicas.values()]) for _ in range(gateways)]
        self._policies = [policy(listed, lambda: self.now) for listed in self._lists]

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), what))

    def run(self, requests: Sequence[Asked]) -> Measured:
        until = requests[-1].at_s
        for asked in requests:
            self.at(asked.at_s, lambda asked=asked: self._send(asked))  # type: ignore[misc]
        for look in range(int(until / LOOK_EVERY_S)):
            self.at(look * LOOK_EVERY_S, self._look)
        for step in range(1, 200):
            self.at(step * until / 200, self._watch)
        while self._events:
            self.now, _, what = heapq.heappop(self._events)
            what()
        return self.measured

    def _send(self, asked: Asked) -> None:
        way = self._policies[asked.gateway].pick(asked.request)
        under_way = ExitStack()
        under_way.enter_context(way)
        self.at(self.now + NETWORK_S, lambda: self._replicas[way.replica.name].take(asked, way, under_way))

    def _look(self) -> None:
        """The worker looks; each gateway reads what it saw somewhat later."""
        seen = [one.listed() for one in self._replicas.values()]
        for known in self._lists:
            self.at(self.now + self._chance.uniform(0, POLL_S), lambda known=known: _read(known, seen))  # type: ignore[misc]

    def _watch(self) -> None:
        loads = [one.load.sequences for one in self._replicas.values()]
        if sum(loads) >= len(loads):
            self.measured.busiest.append(max(loads) * len(loads) / sum(loads))


def _read(known: KnownReplicas, seen: Sequence[Replica]) -> None:
    known.listed = list(seen)


class _PlainWay:
    """A way whose policy only counts what is under way."""

    def __init__(self, replica: Replica, counts: Counter[str]) -> None:
        self.replica = replica
        self._counts = counts

    def __enter__(self) -> None:
        self._counts[self.replica.name] += 1

    def __exit__(self, *_raised: object) -> None:
        self._counts[self.replica.name] -= 1

    def began(self, load: ReplicaLoad | None) -> None:
        pass

    def made(self, completion_tokens: int) -> None:
        pass


class AtRandom:
    """Any replica."""

    def __init__(self, known: KnownReplicas, chance: random.Random) -> None:
        self._known = known
        self._chance = chance
        self._counts: Counter[str] = Counter()

    def pick(self, request: RoutedRequest) -> _PlainWay:
        return _PlainWay(self._chance.choice(self._known.candidates(request.base_model)), self._counts)


class LeastListed:
    """The replica with the least load on the list, and of this gateway; free slots, then adapters come first."""

    def __init__(self, known: KnownReplicas, chance: random.Random) -> None:
        self._known = known
        self._chance = chance
        self._counts: Counter[str] = Counter()

    def pick(self, request: RoutedRequest) -> _PlainWay:
        def order(one: Replica) -> tuple[bool, bool, int, float]:
            resident = request.adapter is None or request.adapter in one.adapters
            load = one.running + one.waiting + self._counts[one.name]
            return one.waiting > 0, not resident, load, self._chance.random()

        return _PlainWay(min(self._known.candidates(request.base_model), key=order), self._counts)


class Routed:
    """What the gateway really does."""

    def __init__(self, known: KnownReplicas, now: Callable[[], float], chance: random.Random) -> None:
        self._router = ReplicaRouter(known, now=now, chance=chance.random)

    def pick(self, request: RoutedRequest) -> Route:
        way = self._router.pick(request, ())
        assert way is not None
        return way


def policies(chance: random.Random) -> dict[str, Callable[[KnownReplicas, Callable[[], float]], Policy]]:
    """Return what there is to compare, by name."""
    return {
        "random": lambda known, _now: AtRandom(known, chance),
        "least_loaded": lambda known, _now: LeastListed(known, chance),
        "routed": lambda known, now: Routed(known, now, chance),
    }


@dataclass(frozen=True)
class Traffic:
    """Requests a second; prefixes of each organization are asked for as Zipf has it. `adapters` are of all together."""

    per_s: float
    seconds: float
    gateways: int
    organizations: int = 20
    prefixes: int = 10
    prefix_tokens: int = 800
    own_tokens: int = 40
    answer_tokens: int = 60
    adapters: int = 0

    def requests(self, chance: random.Random) -> list[Asked]:
        weights = [1 / rank for rank in range(1, self.prefixes + 1)]
        found, at_s = list[Asked](), 0.0
        while (at_s := at_s + chance.expovariate(self.per_s)) < self.seconds:
            organization = chance.randrange(self.organizations)
            (prefix,) = chance.choices(range(self.prefixes), weights)
            adapter = f"ft:{organization % self.adapters}" if self.adapters else None
            beginning = f"{organization} {prefix} " * self.prefix_tokens
            text = beginning[: 4 * self.prefix_tokens] + f"{at_s} " * self.own_tokens
            tokens = self.prefix_tokens + self.own_tokens
            asked = routed(text, organization=f"org_{organization}", adapter=adapter, prompt_tokens=tokens)
            answer = 1 + int(chance.expovariate(1 / self.answer_tokens))
            gateway = chance.randrange(self.gateways)
            found.append(Asked(at_s, gateway, asked, (organization, prefix), self.prefix_tokens, answer))
        return found
