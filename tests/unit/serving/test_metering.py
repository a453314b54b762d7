"""One request's count over all that the engine does for it."""

from tokenyard.core.ids import ApiKeyId, AttemptId, OrganizationId, PriceId, ProjectId
from tokenyard.core.usage import MeterClaims, TokenUsage
from tokenyard_deployments.serving.engine.meter import Meter


def meter() -> Meter:
    return Meter(
        MeterClaims(
            attempt=AttemptId("req_1.1"),
            organization=OrganizationId("org"),
            project=ProjectId("p"),
            key=ApiKeyId("k"),
            model="m",
            base_model="m",
            price=PriceId("c/m"),
            admitted_at_ms=1,
            endpoint="/v1/completions",
        )
    )


def test_a_prompt_counts_once_for_all_its_answers() -> None:
    counted = meter()
    for answer in ("0_a", "1_a"):
        counted.started(answer, "a", 10)
    counted.ended("0_a", "a", TokenUsage(10, 5), aborted=False)
    assert counted.open_sequences == ("1_a",)
    counted.ended("1_a", "a", TokenUsage(10, 7, cached_tokens=8), aborted=False)
    assert counted.usage == TokenUsage(10, 12, cached_tokens=8)
    assert not counted.aborted


def test_prompts_add_up() -> None:
    counted = meter()
    for prompt, tokens in (("a", 3), ("b", 4)):
        counted.started(prompt, prompt, tokens)
        counted.ended(prompt, prompt, TokenUsage(tokens, 2, cached_tokens=1), aborted=False)
    assert counted.usage == TokenUsage(7, 4, cached_tokens=2)


def test_an_end_counts_once() -> None:
    counted = meter()
    counted.started("a", "a", 3)
    counted.ended("a", "a", TokenUsage(3, 2), aborted=True)
    counted.ended("a", "a", TokenUsage(3, 2), aborted=False)
    assert counted.usage == TokenUsage(3, 2)
    assert counted.aborted


def test_what_is_still_open_has_its_prompt_counted() -> None:
    counted = meter()
    counted.started("a", "a", 3)
    assert counted.usage == TokenUsage(3, 0)
