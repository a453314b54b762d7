"""Graders as the `openai` SDK checks and runs them."""

import json
from typing import Any

import httpx
import openai
import pytest
from openai.types.fine_tuning.alpha import GraderRunResponse, GraderValidateResponse

from support.finetune.fixtures import Platform
from support.openai_errors import message_of
from support.openai_schema import check_openai_schema, check_openai_type
from tokenyard.core.evaluation.questions import NotAnswered

CHECK = {
    "type": "string_check",
    "name": "exact",
    "operation": "eq",
    "input": "{{ sample.output_text }}",
    "reference": "{{ item.answer }}",
}
SCORE = {
    "type": "score_model",
    "name": "judge",
    "model": "small-model",
    "input": [{"role": "user", "content": "Is {{ sample.output_text }} good? It should be {{ item.answer }}."}],
}
ITEM = {"answer": "Blue"}


async def run(platform: Platform, grader: Any, sample: str = "Blue", item: Any = ITEM) -> dict[str, Any]:
    found = await platform.acme.fine_tuning.alpha.graders.run(grader=grader, model_sample=sample, item=item)
    sent = found.to_dict()
    check_openai_type(sent, GraderRunResponse)
    check_openai_schema(sent, "RunGraderResponse")
    return sent


@pytest.mark.parametrize("grader", [CHECK, SCORE, {"type": "multi", "name": "m", "graders": CHECK}], ids=str)
async def test_a_grader_is_checked(platform: Platform, grader: Any) -> None:
    whole: Any = {**grader, "calculate_output": "1 - exact"} if grader["type"] == "multi" else grader
    sent = (await platform.acme.fine_tuning.alpha.graders.validate(grader=whole)).to_dict()
    assert sent == {"grader": whole}
    check_openai_type(sent, GraderValidateResponse)
    check_openai_schema(sent, "ValidateGraderResponse")


async def test_what_is_wrong_is_named(platform: Platform) -> None:
    graders: Any = platform.acme.fine_tuning.alpha.graders
    python = {"type": "python", "name": "code", "source": "def grade(sample, item): return 1"}
    for grader, param, code in (
        ({**CHECK, "reference": "{{ item }}"}, "grader.reference", "invalid_grader"),
        (
            {"type": "multi", "name": "m", "graders": {"a": CHECK}, "calculate_output": "b"},
            "grader.calculate_output",
            0,
        ),
        (python, "grader.type", "grader_not_available"),
    ):
        for ask in (graders.validate(grader=grader), graders.run(grader=grader, model_sample="Blue")):
            with pytest.raises(openai.BadRequestError) as refused:
                await ask
            assert (refused.value.param, refused.value.code) == (param, code or "invalid_grader")
    with pytest.raises(openai.BadRequestError, match="item"):
        await graders.run(grader=CHECK, model_sample="Blue", item="Blue")


async def test_an_answer_is_graded(platform: Platform) -> None:
    for sample, reward in (("Blue", 1), ("Green", 0)):
        found = await run(platform, CHECK, sample)
        assert (found["reward"], found["sub_rewards"], found["model_grader_token_usage_per_model"]) == (reward, {}, {})
        metadata = found["metadata"]
        assert (metadata["name"], metadata["type"], metadata["scores"]) == ("exact", "string_check", {})
        assert (metadata["token_usage"], metadata["sampled_model_name"]) == (None, None)
        assert not any(metadata["errors"].values())
    missing = await run(platform, CHECK, item={})
    assert missing["reward"] == 0
    assert [name for name, value in missing["metadata"]["errors"].items() if value] == ["invalid_variable_error"]
    multi = {"type": "multi", "name": "both", "graders": {"a": CHECK, "b": CHECK}, "calculate_output": "a + b / 4"}
    both = await run(platform, multi)
    assert (both["reward"], both["sub_rewards"]) == (1.25, {"a": 1, "b": 1})


async def test_a_model_that_scores_is_asked_with_the_callers_key(platform: Platform) -> None:
    platform.answers.says = lambda _model, _question: '{"result": 0.75}'
    found = await run(platform, SCORE)
    assert (found["reward"], found["metadata"]["sampled_model_name"]) == (0.75, "small-model")
    [(model, question, key)] = platform.answers.asked
    assert (model, key) == ("small-model", "key_acme")
    assert question.asked["messages"] == [{"role": "user", "content": "Is Blue good? It should be Blue."}]
    assert found["model_grader_token_usage_per_model"] == {"small-model": platform.answers.tokens.total_tokens}
    assert found["metadata"]["token_usage"] == platform.answers.tokens.total_tokens
    platform.answers.fails = [NotAnswered("The key has no credit.")]
    refused = await run(platform, SCORE)
    assert refused["reward"] == 0
    assert refused["metadata"]["errors"]["model_grader_server_error_details"] == "The key has no credit."


async def test_any_name_of_a_grader_can_be_asked_for(platform: Platform) -> None:
    platform.answers.says = lambda _model, _question: '{"result": 1}'
    multi = {
        "type": "multi",
        "name": "m",
        "graders": {"größe": SCORE, "日本": SCORE},
        "calculate_output": "größe + 日本",
    }
    for grader, reward in (({**SCORE, "name": "großer Richter\r\n"}, 1), (multi, 2)):
        assert (await run(platform, grader))["reward"] == reward
    keys = list(platform.answers.charged)
    assert len(keys) == 3
    assert all(key.isascii() and key.isprintable() for key in keys)


async def test_what_no_json_could_give_back_is_refused(platform: Platform) -> None:
    """The SDK itself would not send it."""
    deep: Any = "x"
    for _ in range(100):
        deep = [deep]
    wrong = [
        ("validate", {"grader": {**CHECK, "reference": "\ud800"}}, "grader"),
        ("run", {"grader": CHECK, "model_sample": "a", "item": {"answer": "\ud800"}}, "item"),
        ("run", {"grader": CHECK, "model_sample": "a", "item": {"answer": [float("nan")]}}, "item"),
        ("run", {"grader": CHECK, "model_sample": "a", "item": {"answer": deep}}, "item"),
    ]
    headers = {"authorization": f"Bearer {platform.acme.api_key}", "content-type": "application/json"}
    async with httpx.AsyncClient(base_url=str(platform.acme.base_url), headers=headers) as http:
        for path, sent, param in wrong:
            reply = await http.post(f"fine_tuning/alpha/graders/{path}", content=json.dumps(sent))
            assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)


async def test_a_key_is_needed(platform: Platform) -> None:
    stranger = platform.acme.with_options(api_key="ty-nobody")
    with pytest.raises(openai.AuthenticationError) as refused:
        await stranger.fine_tuning.alpha.graders.validate(grader=CHECK)  # type: ignore[arg-type]
    assert "key" in message_of(refused.value).lower()
