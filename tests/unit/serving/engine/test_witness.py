"""What the witness reads at vLLM's output processor when a sequence ends, and when it is aborted."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from support.replica_caller import COMPLETIONS, claims
from tokenyard.core.usage import TokenUsage
from tokenyard_deployments.serving.engine.attempt_tokens import CURRENT_ATTEMPT, AttemptOver, AttemptTokens
from tokenyard_deployments.serving.engine.pinned import UnknownEngine
from tokenyard_deployments.serving.engine.witness import EngineWitness

PROMPT_TOKENS = 10


@dataclass
class Detokenizer:
    tokens: int = 0

    def num_output_tokens(self) -> int:
        return self.tokens


@dataclass
class State:
    """vLLM's `RequestState`, as far as the witness reads it."""

    request_id: str
    detokenizer: Detokenizer | None
    parent_req: Any = None
    prompt_len: int = PROMPT_TOKENS
    num_cached_tokens: int = 0
    is_prefilling: bool = True


@dataclass
class Request:
    request_id: str
    trace_headers: dict[str, str] | None = None


class Processor:
    """vLLM's output processor, as far as the witness takes part in it."""

    def __init__(self) -> None:
        self.request_states: dict[str, State] = {}

    def add_request(self, request: Request, parent: Any = None, *, pooled: bool = False) -> None:
        self.request_states[request.request_id] = State(request.request_id, None if pooled else Detokenizer(), parent)

    def pool(self, sequence: str) -> None:
        state = self.request_states[sequence]
        state.is_prefilling = False
        self._finish_request(state)

    def process(self, sequence: str, tokens: int, *, cached: int = 0, finished: bool = False) -> None:
        state = self.request_states[sequence]
        assert state.detokenizer is not None
        state.is_prefilling, state.num_cached_tokens = False, cached
        state.detokenizer.tokens += tokens
        if finished:
            self._finish_request(state)

    def _finish_request(self, state: State) -> None:
        del self.request_states[state.request_id]

    def abort_requests(self, request_ids: Iterable[str], internal: bool) -> list[str]:
        return [one for one in request_ids if self.request_states.pop(one, None)]


@pytest.fixture
def processor() -> Processor:
    made = Processor()
    EngineWitness(made)
    return made


@contextmanager
def attempt() -> Iterator[AttemptTokens]:
    counted = AttemptTokens(claims(endpoint=COMPLETIONS))
    token = CURRENT_ATTEMPT.set(counted)
    yield counted
    CURRENT_ATTEMPT.reset(token)


def test_a_finished_sequence_is_counted(processor: Processor) -> None:
    with attempt() as counted:
        processor.add_request(Request("a"))
    processor.process("a", 3, cached=4)
    processor.process("a", 2, cached=4, finished=True)
    assert counted.usage == TokenUsage(PROMPT_TOKENS, 5, cached_tokens=4)
    assert not counted.aborted


def test_what_is_made_is_seen_while_it_is_made(processor: Processor) -> None:
    with attempt() as counted:
        processor.add_request(Request("a"))
    assert not counted.begun
    processor.process("a", 3)
    assert (counted.made, counted.running, counted.begun) == (3, 1, True)


def test_an_aborted_sequence_is_counted_to_the_token(processor: Processor) -> None:
    with attempt() as counted:
        processor.add_request(Request("a"))
    processor.process("a", 3)
    assert processor.abort_requests(["a"], internal=True) == ["a"]
    assert counted.usage == TokenUsage(PROMPT_TOKENS, 3)
    assert counted.aborted


def test_a_prompt_that_was_never_computed_is_not_counted(processor: Processor) -> None:
    with attempt() as counted:
        processor.add_request(Request("a"))
    processor.abort_requests(["a"], internal=True)
    assert counted.usage == TokenUsage(0, 0)
    assert counted.aborted
    assert counted.open_sequences == ()


def test_a_text_that_is_embedded_counts_its_prompt_and_nothing_else(processor: Processor) -> None:
    with attempt() as counted:
        for sequence in ("a", "b", "c"):
            processor.add_request(Request(sequence), pooled=True)
    assert (counted.made, counted.running, counted.begun) == (0, 3, False)
    processor.pool("a")
    assert (counted.made, counted.running, counted.begun) == (PROMPT_TOKENS, 2, True)
    processor.pool("b")
    processor.abort_requests(["c"], internal=True)
    assert counted.usage == TokenUsage(2 * PROMPT_TOKENS, 0)
    assert counted.aborted
    assert counted.open_sequences == ()


def test_of_several_answers_one_that_never_began_costs_nothing(processor: Processor) -> None:
    parent = Request("parent")
    with attempt() as counted:
        for sequence in ("0_parent", "1_parent"):
            processor.add_request(Request(sequence), parent)
    processor.process("0_parent", 2)
    processor.abort_requests(["0_parent", "1_parent"], internal=True)
    assert counted.usage == TokenUsage(PROMPT_TOKENS, 2)


def test_the_engine_takes_nothing_for_a_request_that_is_over(processor: Processor) -> None:
    """vLLM reads many prompts in threads, and goes on to the engine with them after their client has left."""
    with attempt() as counted:
        processor.add_request(Request("a"))
        counted.close()
        with pytest.raises(AttemptOver):
            processor.add_request(Request("b"))
    assert set(processor.request_states) == {"a"}
    assert counted.open_sequences == ("a",)


def test_what_no_request_asked_for_is_not_counted(processor: Processor) -> None:
    processor.add_request(Request("canary"))
    processor.process("canary", 1, finished=True)
    assert processor.request_states == {}


def test_another_processor_is_refused() -> None:
    with pytest.raises(UnknownEngine, match="add_request, _finish_request, abort_requests"):
        EngineWitness(State("a", None))
