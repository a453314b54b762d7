"""`retry-after` is true: a simulated engine behind the real admission, under several patterns of arrival."""

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from statistics import median

import pytest

from tokenyard.core.errors import RateLimited, Unavailable
from tokenyard.core.ids import OrganizationId
from tokenyard_deployments.serving.front.admission import EngineAdmission, EngineBounds
from tokenyard_deployments.serving.front.request_body import Load

SLOTS = 8
SHARE = 24
STEP_S = 0.05
TICKS = 1600
WARM_S = 15.0
TOLERANCE = 0.5


@dataclass
class Request:
    """Has its own progress: `lengths` are how long its answers become."""

    organization: OrganizationId
    lengths: list[int]
    at_most: int
    prompt: int = 20
    tokens: list[float] = field(default_factory=list)
    started: int = 0
    inside: AbstractContextManager[None] | None = None
    aborted: bool = False

    @property
    def load(self) -> Load:
        answers = len(self.lengths) * self.at_most
        return Load(len(self.lengths), self.prompt + answers, answers)

    @property
    def made(self) -> int:
        return int(sum(self.tokens))

    @property
    def going(self) -> list[int]:
        return [index for index, made in enumerate(self.tokens) if made < self.lengths[index]]

    @property
    def running(self) -> int:
        return sum(1 for index in self.going if self.tokens[index] >= 1)

    @property
    def over(self) -> bool:
        return self.started == len(self.lengths) and not self.going


class Engine:
    """Runs `SLOTS` sequences at once, the more the slower, and picks next of the organization with fewest running."""

    def __init__(self, tokens_a_second: float) -> None:
        self._tokens_a_second = tokens_a_second
        self.requests: list[Request] = []

    def step(self) -> list[Request]:
        running = [(request, index) for request in self.requests for index in request.going]
        for _ in range(SLOTS - len(running)):
            waiting = [request for request in self.requests if request.started < len(request.lengths)]
            if not waiting:
                break
            busy = [request.organization for request, _ in running]
            chosen = min(waiting, key=lambda request: busy.count(request.organization))
            running.append((chosen, chosen.started))
            chosen.tokens.append(0.0)
            chosen.started += 1
        speed = self._tokens_a_second / (1 + len(running) / 4)
        for request, index in running:
            request.tokens[index] = min(request.lengths[index], request.tokens[index] + speed * STEP_S)
        over = [request for request in self.requests if request.over]
        self.requests = [request for request in self.requests if not request.over]
        return over


@dataclass
class Refusal:
    request: Request
    at: float
    said_s: float
    came_s: float | None = None


class Simulation:
    def __init__(self, tokens_a_second: float = 40.0) -> None:
        self.now = 0.0
        self.admission = EngineAdmission(EngineBounds(SLOTS, SHARE, SHARE * 1024), now=lambda: self.now)
        self.engine = Engine(tokens_a_second)
        self.refusals: list[Refusal] = []

    def send(self, request: Request) -> None:
        inside = self.admission.enter(request.organization, request.load, request)
        try:
            inside.__enter__()
        except (RateLimited, Unavailable):
            said_s = self.admission.retry_after_s(request.organization, request.load)
            self.refusals.append(Refusal(request, self.now, said_s))
        else:
            request.inside = inside
            self.engine.requests.append(request)

    def tick(self) -> None:
        self.now += STEP_S
        for request in self.engine.step():
            assert request.inside is not None
            request.inside.__exit__(None, None, None)
        for refusal in self.refusals:
            if refusal.came_s is None and self.admission.has_room(refusal.request.organization, refusal.request.load):
                refusal.came_s = self.now - refusal.at

    def ratios(self, *, after_s: float = 0.0) -> list[float]:
        """Return what was said over what was true; a second is the least that can be said."""
        return [
            refusal.said_s / max(refusal.came_s, 1.0)
            for refusal in self.refusals
            if refusal.came_s is not None and refusal.at >= after_s
        ]


Arrivals = Iterator[list[Request]]
"""What arrives in each tick."""


def organization(number: int) -> OrganizationId:
    return OrganizationId(f"org_{number}")


def burst(chance: random.Random) -> Arrivals:
    """One organization sends more than its part at once, again and again."""
    while True:
        length = chance.randint(50, 400)
        yield [Request(organization(0), [length], length) for _ in range(SHARE + 6)]
        for _ in range(TICKS // 4):
            yield []


def pauses(chance: random.Random) -> Arrivals:
    """Bursts of answers of many lengths, and long pauses with nothing at all between them."""
    while True:
        lengths = [chance.randint(40, 200) for _ in range(SHARE + 3)]
        yield [Request(organization(0), [length], length) for length in lengths]
        for _ in range(TICKS // 3):
            yield []


def steady(chance: random.Random, *, organizations: int = 1, part: float = 1.0) -> Arrivals:
    """More than the engine can do, at random moments; answers end before `max_tokens` where `part` is below 1."""
    while True:
        arrived = []
        if chance.random() < 2.5 * STEP_S / part:
            at_most = chance.randint(100, 300)
            length = max(1, int(at_most * min(1.0, chance.uniform(0.5, 1.5) * part)))
            arrived = [Request(organization(chance.randrange(organizations)), [length], at_most)]
        yield arrived


def wide(chance: random.Random) -> Arrivals:
    """One organization asks for many answers at a time."""
    while True:
        answers = chance.randint(4, 16)
        lengths = [chance.randint(80, 160) for _ in range(answers)]
        yield [Request(organization(0), lengths, 160)] if chance.random() < 0.02 else []


def crowd(chance: random.Random) -> Arrivals:
    """Many organizations fill everything, and a new one comes now and then."""
    yield [Request(organization(number), [60] * SHARE, 60) for number in range(4)]
    for tick in range(TICKS):
        yield [Request(organization(10 + tick), [10], 10)] if tick % 40 == 0 else []


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    "pattern",
    [
        burst,
        pauses,
        steady,
        lambda chance: steady(chance, organizations=3),
        lambda chance: steady(chance, part=0.2),
        wide,
        crowd,
    ],
    ids=["burst", "pauses", "steady", "several", "early-ends", "wide", "crowd"],
)
def test_who_is_told_when_to_come_back_finds_room_then(pattern: Callable[[random.Random], Arrivals], seed: int) -> None:
    simulation, arrivals = Simulation(), pattern(random.Random(seed))
    for _ in range(TICKS):
        for request in next(arrivals, []):
            simulation.send(request)
        simulation.tick()
    ratios = simulation.ratios(after_s=0.0 if pattern is crowd else WARM_S)
    assert len(ratios) >= 5
    assert abs(median(ratios) - 1) <= TOLERANCE
    assert sum(abs(ratio - 1) <= TOLERANCE for ratio in ratios) >= len(ratios) / 2
