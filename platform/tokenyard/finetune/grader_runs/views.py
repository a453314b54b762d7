"""Graders and their runs as OpenAI's API has them."""

from pydantic import BaseModel, Field

from tokenyard.core.errors import InvalidRequest
from tokenyard.core.graders.grading import GradingError
from tokenyard.core.graders.shapes import ModelGrader
from tokenyard.core.graders.templates import GradedAnswer
from tokenyard.core.schemas import json_problem
from tokenyard.finetune.grader_runs.running import GraderRun
from tokenyard.finetune.methods.method import Json

MAX_SAMPLE = 1_000_000


class ValidateGraderRequest(BaseModel, extra="forbid"):
    """A grader that is to be checked."""

    grader: Json


class RunGraderRequest(ValidateGraderRequest):
    """`model_sample` is the answer to grade, `item` what it answers: for a job, the training row."""

    model_sample: str = Field(max_length=MAX_SAMPLE)
    item: Json = Field(default_factory=dict)

    def answer(self) -> GradedAnswer:
        """Return what is graded, or raise `InvalidRequest`."""
        problem = json_problem(self.item)
        if problem is not None:
            raise InvalidRequest(f"Invalid 'item': {problem}.", param="item")
        return GradedAnswer(self.item, self.model_sample)


class ValidatedGraderView(BaseModel):
    """The grader, as it was sent."""

    grader: Json


class GraderErrorsView(BaseModel):
    """OpenAI's flags. What is about Python never happens here."""

    formula_parse_error: bool = False
    sample_parse_error: bool
    truncated_observation_error: bool
    unresponsive_reward_error: bool = False
    invalid_variable_error: bool
    other_error: bool
    python_grader_server_error: bool = False
    python_grader_server_error_type: str | None = None
    python_grader_runtime_error: bool = False
    python_grader_runtime_error_details: str | None = None
    model_grader_server_error: bool
    model_grader_refusal_error: bool = False
    model_grader_parse_error: bool
    model_grader_server_error_details: str | None


class GraderMetadataView(BaseModel):
    """How a grade came to be; `token_usage` is that of the models that were asked."""

    name: str
    type: str
    errors: GraderErrorsView
    execution_time: float
    scores: dict[str, float]
    token_usage: int | None
    sampled_model_name: str | None


class GraderRunView(BaseModel):
    """OpenAI's answer to a run."""

    reward: float
    metadata: GraderMetadataView
    sub_rewards: dict[str, float]
    model_grader_token_usage_per_model: dict[str, int]

    @classmethod
    def of(cls, run: GraderRun) -> "GraderRunView":
        flags = {error.value: error in run.grade.errors for error in GradingError}
        metadata = GraderMetadataView(
            name=run.grader.name,
            type=type(run.grader).__struct_config__.tag,
            errors=GraderErrorsView(**flags, model_grader_server_error_details=run.grade.details),
            execution_time=run.seconds,
            scores=dict(run.grade.rewards),
            token_usage=sum(run.tokens.values()) if run.tokens else None,
            sampled_model_name=run.grader.model if isinstance(run.grader, ModelGrader) else None,
        )
        return cls(
            reward=run.grade.reward,
            metadata=metadata,
            sub_rewards=dict(run.grade.rewards),
            model_grader_token_usage_per_model=dict(run.tokens),
        )
