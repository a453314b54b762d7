"""Admission to the engine: what is let in, what is refused for whose sake, and what both cost."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from support.fakes.clock import FrozenClock
from tokenyard.core.errors import RateLimited, TokenyardError, Unavailable
from tokenyard.core.ids import OrganizationId
from tokenyard.core.model_files.reading import read_model_spec
from tokenyard_deployments.serving.front.admission import MAX_RETRY_S, EngineAdmission, EngineBounds
from tokenyard_deployments.serving.front.request_body import Load

SHIPPED = Path(__file__).parents[4] / "deployments" / "models" / "smollm2-135m-instruct.yaml"
ONE = OrganizationId("org_1")
OTHER = OrganizationId("org_2")


@dataclass
class Progress:
    """By default none."""

    made: int = 0
    running: int = 0
    aborted: bool = False


def load(sequences: int = 1, tokens: int = 100) -> Load:
    return Load(sequences, sequences * tokens, sequences * tokens)


@pytest.fixture
def inside() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def admission() -> EngineAdmission:
    return EngineAdmission(EngineBounds(slots=4, sequences=8, tokens=8000))


def fill(admission: EngineAdmission, inside: ExitStack, organization: OrganizationId, wanted: Load) -> int:
    count = 0
    while admission.has_room(organization, wanted):
        inside.enter_context(admission.enter(organization, wanted, Progress()))
        count += 1
    return count


def refusal(admission: EngineAdmission, organization: OrganizationId, wanted: Load) -> TokenyardError:
    with pytest.raises(TokenyardError) as refused, admission.enter(organization, wanted, Progress()):
        pass
    assert int(refused.value.headers["retry-after"]) >= 1
    return refused.value


def test_an_organization_alone_fills_its_share_and_is_told_to_slow_down(
    admission: EngineAdmission, inside: ExitStack
) -> None:
    assert fill(admission, inside, ONE, load()) == 8
    refused = refusal(admission, ONE, load())
    assert isinstance(refused, RateLimited)
    assert refused.code == "slow_down"


def test_when_to_come_back_is_told_by_the_pace_of_what_was_embedded() -> None:
    """Of texts it is not known which of them run: all of those inside may."""
    clock = FrozenClock(0.0)
    admission = EngineAdmission(EngineBounds(slots=4, sequences=40, tokens=10**6), clock)
    batch = Progress(running=40)
    with admission.enter(ONE, Load(40, 4000, 4000), batch):
        for second in range(1, 5):
            clock.advance(1.0)
            batch.made, batch.running = 400 * second, 40 - 4 * second
            admission.retry_after_s(ONE, load())
        # 400 tokens a second, 2,400 of them left.
        assert admission.retry_after_s(ONE, Load(40, 4000, 4000)) == pytest.approx(6, rel=0.3)


def test_tokens_are_bounded_as_sequences_are(admission: EngineAdmission, inside: ExitStack) -> None:
    assert fill(admission, inside, ONE, load(tokens=4000)) == 2
    assert isinstance(refusal(admission, ONE, load(tokens=4000)), RateLimited)
    assert admission.has_room(OTHER, load(tokens=4000))


def test_who_finds_no_room_for_others_sake_is_told_that_the_model_is_overloaded(
    admission: EngineAdmission, inside: ExitStack
) -> None:
    for number in range(30):
        fill(admission, inside, OrganizationId(f"org_many{number}"), load())
    assert isinstance(refusal(admission, ONE, load()), Unavailable)


async def test_whoever_leaves_makes_room(admission: EngineAdmission) -> None:
    with ExitStack() as inside:
        fill(admission, inside, ONE, load())
        assert admission.busy_since is not None
    assert admission.sequences == 0
    assert admission.busy_since is None
    await admission.empty()
    assert admission.has_room(ONE, load())


def test_an_error_inside_makes_room_too(admission: EngineAdmission) -> None:
    with pytest.raises(ZeroDivisionError), admission.enter(ONE, load(), Progress()):
        raise ZeroDivisionError
    assert admission.sequences == 0


def test_nobody_is_sent_away_for_longer_than_makes_sense(inside: ExitStack) -> None:
    admission = EngineAdmission(EngineBounds(slots=1, sequences=2, tokens=10**9))
    fill(admission, inside, ONE, load(tokens=10**6))
    assert int(refusal(admission, ONE, load()).headers["retry-after"]) == MAX_RETRY_S


def test_an_estimate_is_made_once_for_many_refusals(inside: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    admission = EngineAdmission(EngineBounds(slots=4, sequences=8, tokens=8000), now=lambda: now[0])
    fill(admission, inside, ONE, load())
    estimates = []

    def estimate(organization: OrganizationId, _load: Load) -> float:
        estimates.append(organization)
        return 7.0

    monkeypatch.setattr(admission, "_estimate", estimate)
    for _ in range(100):
        refusal(admission, ONE, load())
    assert len(estimates) == 1
    now[0] += 1
    refusal(admission, ONE, load())
    assert len(estimates) == 2


def test_the_bounds_of_a_model_let_one_alone_use_all_of_a_replica() -> None:
    spec = read_model_spec(SHIPPED.read_bytes())
    bounds = EngineBounds.of(spec, 32)
    assert bounds.sequences == (32 + 512) // 3
    assert bounds.tokens >= 32 * spec.context_length
    assert EngineBounds.of(msgspec.structs.replace(spec, max_waiting=0), 32) == (32, 32, 32 * spec.context_length)


def test_answers_that_were_cut_or_never_came_tell_nothing_of_how_long_answers_get(inside: ExitStack) -> None:
    """Otherwise a wave of clients that leave makes everybody believe that there will be room in a moment."""
    now = [0.0]
    admission = EngineAdmission(EngineBounds(slots=4, sequences=8, tokens=8000), lambda: now[0])
    for cut in (Progress(made=1, aborted=True), Progress()):
        for _ in range(50):
            with admission.enter(ONE, load(), cut):
                now[0] += 0.01
    half_done = Progress(made=50, running=1)
    for _ in range(8):
        inside.enter_context(admission.enter(ONE, load(), half_done))
    assert admission.retry_after_s(ONE, load()) == pytest.approx(50 / 20, rel=0.1), "at the first guess of the pace"
