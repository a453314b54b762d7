"""Runs and output items as OpenAI's API has them."""

from typing import Literal

from pydantic import BaseModel, Field

from tokenyard.core.usage import TokenUsage
from tokenyard.evals.ports import Json
from tokenyard.evals.runs.data_source import EvalSampling, sampling_of
from tokenyard.evals.runs.run import EvalRun, EvalSample, GraderReply, ItemState, Result, StoredItem
from tokenyard.web.pages import Identified
from tokenyard.web.queries import Metadata
from tokenyard.web.request_guard import NO_NUL

MAX_NAME = 255
RunStatus = Literal["queued", "in_progress", "completed", "canceled", "failed"]
ItemStatus = Literal["pass", "fail", "error"]


class EvalRunRequest(BaseModel, extra="forbid"):
    """A run that is to be created."""

    name: str = Field(default="", max_length=MAX_NAME, pattern=NO_NUL)
    metadata: Metadata | None = None
    data_source: Json


class EvalErrorView(BaseModel, from_attributes=True):
    """Why something could not be done."""

    code: str
    message: str


class ResultCountsView(BaseModel):
    """How many rows there are, and what came of them so far."""

    total: int
    errored: int
    failed: int
    passed: int


class CriterionCountView(BaseModel):
    """How many rows passed one criterion."""

    testing_criteria: str
    passed: int
    failed: int


class ModelUsageView(BaseModel):
    """What was asked of one model."""

    model_name: str
    invocation_count: int
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: int


class EvalRunView(Identified):
    """OpenAI's run object. There is no page that shows a run, so `report_url` is empty."""

    object: Literal["eval.run"] = "eval.run"
    eval_id: str
    status: RunStatus
    model: str
    name: str
    created_at: int
    report_url: str = ""
    result_counts: ResultCountsView
    per_model_usage: list[ModelUsageView]
    per_testing_criteria_results: list[CriterionCountView]
    data_source: Json
    metadata: dict[str, str]
    error: EvalErrorView | None

    @classmethod
    def of(cls, run: EvalRun) -> "EvalRunView":
        tally = run.tally
        counts = ResultCountsView(total=run.total or 0, errored=tally.errored, failed=tally.failed, passed=tally.passed)
        return cls(
            id=run.id,
            eval_id=run.eval,
            status=run.state.value,
            model=run.model,
            name=run.name,
            created_at=run.created_at_ms // 1000,
            result_counts=counts,
            per_model_usage=[
                ModelUsageView(
                    model_name=name,
                    invocation_count=count.calls,
                    prompt_tokens=count.usage.prompt_tokens,
                    completion_tokens=count.usage.completion_tokens,
                    total_tokens=count.usage.total_tokens,
                    cached_tokens=count.usage.cached_tokens,
                )
                for name, count in tally.models.items()
            ],
            per_testing_criteria_results=[
                CriterionCountView(testing_criteria=name, passed=count.passed, failed=count.failed)
                for name, count in tally.criteria.items()
            ],
            data_source=run.content.data_source,
            metadata=dict(run.metadata),
            error=None if run.error is None else EvalErrorView.model_validate(run.error),
        )


class DeletedEvalRunView(BaseModel):
    """OpenAI's answer to a deletion."""

    object: Literal["eval.run.deleted"] = "eval.run.deleted"
    deleted: Literal[True] = True
    run_id: str


class SampleMessageView(BaseModel):
    """A message of a sample."""

    role: str
    content: str


class SampleUsageView(BaseModel):
    """What a sample took."""

    total_tokens: int
    completion_tokens: int
    prompt_tokens: int
    cached_tokens: int

    @classmethod
    def of(cls, tokens: TokenUsage) -> "SampleUsageView":
        return cls(
            total_tokens=tokens.total_tokens,
            completion_tokens=tokens.completion_tokens,
            prompt_tokens=tokens.prompt_tokens,
            cached_tokens=tokens.cached_tokens,
        )


class SampleView(BaseModel):
    """What was graded, and how it was drawn; where no model was asked, there is little to say of that."""

    input: list[SampleMessageView]
    output: list[SampleMessageView]
    finish_reason: str
    model: str
    usage: SampleUsageView
    error: EvalErrorView | None
    temperature: float
    max_completion_tokens: int
    top_p: float
    seed: int

    @classmethod
    def of(cls, sample: EvalSample, sampling: EvalSampling) -> "SampleView":
        output = [] if sample.error is not None else [SampleMessageView(role="assistant", content=sample.text)]
        return cls(
            input=[SampleMessageView.model_validate(message) for message in sample.input],
            output=output,
            finish_reason=sample.finish_reason,
            model=sample.model,
            usage=SampleUsageView.of(sample.tokens),
            error=None if sample.error is None else EvalErrorView.model_validate(sample.error),
            temperature=sampling.temperature,
            max_completion_tokens=sampling.max_completion_tokens,
            top_p=sampling.top_p,
            seed=sampling.seed,
        )


class ResultView(BaseModel):
    """What one grader makes of an item; `sample` has what models said to it, and what could not be graded."""

    name: str
    type: str
    score: float
    passed: bool
    sample: Json | None

    @classmethod
    def of(cls, result: Result) -> "ResultView":
        sample: Json = {}
        if result.replies:
            sample["outputs"] = [_reply(reply) for reply in result.replies]
        if result.errors:
            sample["errors"] = list(result.errors)
        return cls(name=result.name, type=result.type, score=result.score, passed=result.passed, sample=sample or None)


class OutputItemView(Identified):
    """OpenAI's output item. `status` is `error` where a model did not answer."""

    object: Literal["eval.run.output_item"] = "eval.run.output_item"
    run_id: str
    eval_id: str
    created_at: int
    status: ItemStatus
    datasource_item_id: int
    datasource_item: Json
    results: list[ResultView]
    sample: SampleView

    @classmethod
    def of(cls, run: EvalRun, item: StoredItem) -> "OutputItemView":
        assert item.state is not ItemState.PENDING, "it is not shown"
        assert item.content.sample is not None, "it was graded"
        return cls(
            id=item.id,
            run_id=run.id,
            eval_id=run.eval,
            created_at=item.created_at_ms // 1000,
            status=item.state.value,
            datasource_item_id=item.number,
            datasource_item=item.content.item,
            results=[ResultView.of(result) for result in item.content.results],
            sample=SampleView.of(item.content.sample, sampling_of(run.content.data_source)),
        )


def _reply(reply: GraderReply) -> Json:
    return {
        "model": reply.model,
        "content": reply.text,
        "finish_reason": reply.finish_reason,
        "usage": SampleUsageView.of(reply.tokens).model_dump(),
        "error": reply.error,
    }
