"""A model that is no better than its base on held-out rows is published only if asked for; what it measured stays."""

from typing import Any

import msgspec
import pytest

from support.finetune.rows import rows
from support.finetune.stack import FinetuneStack, principal
from tokenyard.core.errors import InvalidRequest
from tokenyard.core.ids import FileId
from tokenyard.finetune.job import Job
from tokenyard.finetune.views import JobView

BASE = {"base_valid_loss": 2.0, "base_valid_mean_token_accuracy": 0.5}
BETTER = BASE | {"valid_loss": 1.0, "valid_mean_token_accuracy": 0.8, "train_loss": 0.4, "full_valid_loss": 1.0}
WORSE = BASE | {"valid_loss": 2.5, "valid_mean_token_accuracy": 0.4}


async def trained(stack: FinetuneStack, metrics: dict[str, float], **request: Any) -> Job:
    file = await stack.upload(principal(), rows(3))
    job = await stack.create(validation_file=file, **request)
    await stack.rounds(2)
    await stack.cluster.succeed(f"{job.id}-1", tokens=400, metrics=metrics)
    await stack.rounds(3)
    return await stack.job(job.id)


async def evaluation(stack: FinetuneStack, job: Job) -> dict[str, Any]:
    assert job.evaluation_file is not None
    assert job.evaluation_file in JobView.of(job).result_files
    stored = await stack.files.get(job.organization, FileId(job.evaluation_file))
    assert (stored.purpose, stored.filename) == ("fine-tune-results", "evaluation.json")
    content = await stack.blobs.read(stack.files.path(job.organization, stored.id))
    assert len(content) == stored.bytes
    found: dict[str, Any] = msgspec.json.decode(content)
    return found


async def test_a_better_model_is_published_with_its_figures(stack: FinetuneStack) -> None:
    job = await trained(stack, BETTER)
    assert job.status == "succeeded"
    found = await evaluation(stack, job)
    assert found["fine_tuned_model"] == str(job.model_name)
    assert found["held_out"] == {
        "base": {"loss": 2.0, "mean_token_accuracy": 0.5, "perplexity": pytest.approx(7.389, abs=1e-3)},
        "tuned": {"loss": 1.0, "mean_token_accuracy": 0.8, "perplexity": pytest.approx(2.718, abs=1e-3)},
    }
    assert "On the validation file, tuned model against base: loss 1.0000 against 2.0000" in await stack.messages(job)
    assert "publish_if_worse" not in JobView.of(job).model_dump()


@pytest.mark.parametrize("worse", [WORSE, BASE | {"valid_loss": 2.0}], ids=["worse", "equal"])
async def test_one_that_is_not_is_discarded_and_paid_for(stack: FinetuneStack, worse: dict[str, float]) -> None:
    job = await trained(stack, worse)
    shown = JobView.of(job)
    assert (shown.status, shown.fine_tuned_model, shown.trained_tokens) == ("failed", None, 400)
    assert shown.error is not None
    assert (shown.error.code, shown.error.param) == ("no_improvement", "validation_file")
    assert "what was trained is charged" in shown.error.message
    [charge] = await stack.charges()
    assert (charge.trained_tokens, charge.model) == (400, "small-model")
    assert stack.catalog.lives == {}, "no replica ever saw it"
    found = await evaluation(stack, job)
    assert (found["fine_tuned_model"], found["held_out"]["tuned"]["loss"]) == (None, worse["valid_loss"])


async def test_it_is_published_where_that_was_asked_for(stack: FinetuneStack) -> None:
    job = await trained(stack, WORSE, publish_if_worse=True)
    shown = JobView.of(job)
    assert (shown.status, shown.publish_if_worse) == ("succeeded", True)
    assert any("published because that was asked for" in message for message in await stack.messages(job))
    assert stack.catalog.lives[job.adapter or ""] == ["checking", "live"]  # type: ignore[index]


async def test_preferences_have_no_accuracy_of_tokens(stack: FinetuneStack) -> None:
    measured = {"base_valid_loss": 0.6931, "valid_loss": 0.5, "valid_reward_accuracy": 0.9, "valid_reward_margin": 1.5}
    found = await evaluation(stack, await trained(stack, measured))
    assert found["held_out"] == {
        "base": {"loss": 0.6931},
        "tuned": {"loss": 0.5, "reward_accuracy": 0.9, "reward_margin": 1.5},
    }


@pytest.mark.parametrize(("tuned", "status"), [(0.75, "succeeded"), (0.25, "failed"), (0.2, "failed")])
async def test_of_rewards_the_higher_one_is_better(stack: FinetuneStack, tuned: float, status: str) -> None:
    job = await trained(stack, {"base_valid_reward": 0.25, "valid_reward": tuned, "train_loss": 0.1})
    assert job.status == status
    assert (await evaluation(stack, job))["held_out"] == {"base": {"reward": 0.25}, "tuned": {"reward": tuned}}
    said = f"On the validation file, tuned model against base: reward {tuned:.4f} against 0.2500"
    assert said in await stack.messages(job)


async def test_without_a_validation_file_there_is_nothing_to_ask_for(stack: FinetuneStack) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await stack.create(publish_if_worse=True)
    assert refused.value.param == "publish_if_worse"
    with pytest.raises(ValueError, match="publish_if_worse"):
        await stack.create(publish_if_worse="yes")
    job = await stack.create(publish_if_worse=False)
    await stack.rounds(2)
    await stack.cluster.succeed(f"{job.id}-1", tokens=10, metrics={"train_loss": 1.0})
    await stack.rounds(3)
    ended = await stack.job(job.id)
    assert (ended.status, ended.evaluation_file) == ("succeeded", None)
