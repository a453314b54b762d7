"""What an answer from elsewhere counts: as told where that can be, never more than held, never nothing for text."""

from typing import Any

import pytest

from tokenyard.core.usage import TokenUsage
from tokenyard.gateway.elsewhere.answer_count import AnswerCount, CountBounds, usage_told

BOUNDS = CountBounds(prompts=(100,), guesses=(25,), choices=1, max_tokens=50)


def _told(prompt: object, completion: object, **more: object) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, **more}


def test_what_is_told_counts() -> None:
    count = AnswerCount(BOUNDS)
    count.passed(0, 400)
    told = _told(30, 40, prompt_tokens_details={"cached_tokens": 10})
    assert count.total(told) == TokenUsage(30, 40, 10)
    assert not count.over


@pytest.mark.parametrize(
    "told",
    [
        None,
        {},
        _told(None, 5),
        _told(-1, 5),
        _told(5, -1),
        _told("5", 5),
        _told(5, 5.5),
        _told(True, 5),
        _told(0, 5),
        _told(5, 0),
        [],
        "much",
    ],
)
def test_what_cannot_be_is_not_believed(told: Any) -> None:
    count = AnswerCount(BOUNDS)
    count.passed(0, 40)
    assert count.total(told) == TokenUsage(25, 10)


def test_an_answer_without_text_may_cost_no_tokens() -> None:
    assert AnswerCount(BOUNDS).total(_told(5, 0)) == TokenUsage(5, 0)


@pytest.mark.parametrize(
    ("told", "counted"),
    [
        (_told(10**12, 40), TokenUsage(100, 40)),
        (_told(30, 10**12), TokenUsage(30, 50)),
        (_told(30, 40, prompt_tokens_details={"cached_tokens": 10**6}), TokenUsage(30, 40, 30)),
        (_told(30, 40, prompt_tokens_details={"cached_tokens": -5}), TokenUsage(30, 40)),
        (_told(30, 40, prompt_tokens_details="all"), TokenUsage(30, 40)),
    ],
)
def test_never_more_than_held(told: dict[str, Any], counted: TokenUsage) -> None:
    count = AnswerCount(BOUNDS)
    count.passed(0, 4)
    assert count.total(told) == counted


def test_more_than_held_is_noticed() -> None:
    count = AnswerCount(BOUNDS)
    count.total(_told(101, 1))
    assert count.over


def test_its_own_count_is_by_pieces_or_by_bytes_whichever_is_more_and_within_what_was_held() -> None:
    count = AnswerCount(BOUNDS)
    count.passed(0, 0)
    assert count.of_choice(0) == TokenUsage(25, 0)
    for _ in range(3):
        count.passed(0, 1)
    assert count.of_choice(0) == TokenUsage(25, 3)
    count.passed(0, 97)
    assert count.of_choice(0) == TokenUsage(25, 25)
    count.passed(0, 10_000)
    assert count.of_choice(0) == count.total() == TokenUsage(25, 50)


def test_choices_and_prompts_each_have_their_own() -> None:
    count = AnswerCount(CountBounds(prompts=(10, 20), guesses=(30, 5), choices=2, max_tokens=8))
    count.passed(1, 8)
    count.passed(3, 400)
    assert [count.of_choice(at) for at in range(4)] == [
        TokenUsage(10, 0),
        TokenUsage(10, 2),
        TokenUsage(5, 0),
        TokenUsage(5, 8),
    ]
    assert count.total() == TokenUsage(15, 10)
    assert count.total(_told(10**6, 10**6)) == TokenUsage(30, 32)
    assert count.of_choice(3, _told(50, 50)) == TokenUsage(20, 8)


def test_it_is_told_on_as_a_replica_does() -> None:
    told = _told(30, 40, completion_tokens_details={"reasoning_tokens": 99}, cost=1)
    assert usage_told(TokenUsage(30, 40, 10), told) == {
        "prompt_tokens": 30,
        "completion_tokens": 40,
        "total_tokens": 70,
        "prompt_tokens_details": {"cached_tokens": 10},
        "completion_tokens_details": {"reasoning_tokens": 40},
    }
    assert usage_told(TokenUsage(1, 2), {"completion_tokens_details": 5}) == {
        "prompt_tokens": 1,
        "completion_tokens": 2,
        "total_tokens": 3,
    }
