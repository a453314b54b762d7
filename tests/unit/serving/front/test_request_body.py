"""What a body is taken for before the engine sees it: how many prompts, and how many tokens at the worst."""

from typing import Any

import msgspec
import pytest

from support.replica_caller import MODEL, claims
from tokenyard.core.errors import InvalidRequest, PermissionDenied
from tokenyard.core.replica import MAX_EMBEDDINGS, MAX_SEQUENCES
from tokenyard_deployments.serving.front.request_body import Load, read_load

CONTEXT = 256


def load(*, generates: bool, **body: Any) -> Load:
    return read_load(msgspec.json.encode({"model": MODEL, **body}), claims(), CONTEXT, generates=generates)


@pytest.mark.parametrize(
    ("body", "texts"),
    [
        ({"input": "a"}, 1),
        ({"input": ["a", "b"]}, 2),
        ({"input": [1, 2, 3]}, 1),
        ({"input": [[1], [2]]}, 2),
        ({"queries": "a", "documents": ["b", "c"]}, 3),
        ({"queries": ["a", "b"], "documents": ["c", "d"]}, 4),
        ({"queries": "a", "documents": "b"}, 2),
    ],
)
def test_texts_to_embed_bring_their_own_tokens_and_no_answers(body: dict[str, Any], texts: int) -> None:
    brought = load(generates=False, **body)
    assert brought.sequences == texts
    assert brought.tokens == brought.answer_tokens <= len(msgspec.json.encode({"model": MODEL, **body}))


def test_a_text_brings_no_more_than_the_context_holds() -> None:
    assert load(generates=False, input=["x" * 10_000] * 3).tokens == 3 * CONTEXT


def test_more_texts_than_answers_may_come_in_one_request() -> None:
    assert load(generates=False, input=["a"] * 2048).sequences == 2048 > MAX_SEQUENCES
    with pytest.raises(InvalidRequest, match="texts"):
        load(generates=False, input=["a"] * (MAX_EMBEDDINGS + 1))
    with pytest.raises(InvalidRequest, match="answers"):
        load(generates=True, prompt=["a"] * (MAX_SEQUENCES + 1))


def test_an_answer_without_a_bound_may_fill_the_context() -> None:
    assert load(generates=True, prompt="a").answer_tokens == CONTEXT
    assert load(generates=True, prompt=["a", "b"], max_tokens=5, n=2).answer_tokens == 2 * 2 * 5


def test_a_body_for_another_model_is_refused() -> None:
    for generates in (True, False):
        with pytest.raises(PermissionDenied):
            load(generates=generates, input="a", model="other")
