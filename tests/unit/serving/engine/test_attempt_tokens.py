"""One request's count over all that the engine does for it."""

from support.replica_caller import COMPLETIONS, claims
from tokenyard.core.usage import TokenUsage
from tokenyard_deployments.serving.engine.attempt_tokens import AttemptTokens


def attempt() -> AttemptTokens:
    return AttemptTokens(claims(endpoint=COMPLETIONS))


def test_a_prompt_counts_once_for_all_its_answers() -> None:
    counted = attempt()
    for answer in ("0_a", "1_a"):
        counted.started(answer, lambda: 0)
    counted.ended("0_a", "a", TokenUsage(10, 5), aborted=False)
    assert counted.open_sequences == ("1_a",)
    counted.ended("1_a", "a", TokenUsage(10, 7, cached_tokens=8), aborted=False)
    assert counted.usage == TokenUsage(10, 12, cached_tokens=8)
    assert not counted.aborted


def test_prompts_add_up() -> None:
    counted = attempt()
    for prompt, tokens in (("a", 3), ("b", 4)):
        counted.started(prompt, lambda: 0)
        counted.ended(prompt, prompt, TokenUsage(tokens, 2, cached_tokens=1), aborted=False)
    assert counted.usage == TokenUsage(7, 4, cached_tokens=2)


def test_an_end_counts_once() -> None:
    counted = attempt()
    counted.started("a", lambda: 0)
    counted.ended("a", "a", TokenUsage(3, 2), aborted=True)
    counted.ended("a", "a", TokenUsage(3, 2), aborted=False)
    assert counted.usage == TokenUsage(3, 2)
    assert counted.aborted


def test_what_is_still_open_is_not_counted() -> None:
    counted = attempt()
    counted.started("a", lambda: 0)
    assert counted.usage == TokenUsage(0, 0)
    assert counted.open_sequences == ("a",)


def test_an_answer_that_never_began_leaves_the_prompt_of_the_others() -> None:
    counted = attempt()
    for answer in ("0_a", "1_a"):
        counted.started(answer, lambda: 0)
    counted.ended("0_a", "a", TokenUsage(10, 5, cached_tokens=8), aborted=True)
    counted.ended("1_a", "a", TokenUsage(0, 0), aborted=True)
    assert counted.usage == TokenUsage(10, 5, cached_tokens=8)


def test_what_was_made_so_far_is_known_before_the_end() -> None:
    counted, made = attempt(), {"0_a": 0, "1_a": 0}
    counted.started("0_a", lambda: made["0_a"])
    counted.started("1_a", lambda: made["1_a"])
    assert (counted.made, counted.running, counted.begun) == (0, 0, False)
    made["0_a"] = 3
    assert (counted.made, counted.running, counted.begun) == (3, 1, True)
    counted.ended("0_a", "a", TokenUsage(10, 4), aborted=False)
    assert (counted.made, counted.running, counted.begun) == (4, 0, True)


def test_a_request_that_never_began_has_not() -> None:
    counted = attempt()
    counted.started("a", lambda: 0)
    counted.ended("a", "a", TokenUsage(0, 0), aborted=True)
    assert not counted.begun


def test_what_makes_no_tokens_has_begun_when_it_ends() -> None:
    counted = attempt()
    counted.started("embedding", lambda: 0)
    counted.ended("embedding", "embedding", TokenUsage(5, 0), aborted=False)
    assert counted.begun
