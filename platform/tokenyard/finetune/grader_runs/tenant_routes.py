"""`/v1/fine_tuning/alpha/graders`, as OpenAI's API has it."""

from fastapi import APIRouter

from tokenyard.finetune.grader_runs.running import run_grader
from tokenyard.finetune.grader_runs.views import (
    GraderRunView,
    RunGraderRequest,
    ValidatedGraderView,
    ValidateGraderRequest,
)
from tokenyard.finetune.methods.reinforcement import checked_grader
from tokenyard.finetune.ports import ModelAnswers
from tokenyard.web.auth import FreshFineTuningTenant


def grader_router(models: ModelAnswers) -> APIRouter:
    """Return the routes; `models` answers what graders ask."""
    router = APIRouter(prefix="/v1/fine_tuning/alpha/graders", tags=["fine-tuning"])

    @router.post("/validate")
    async def validate_grader(body: ValidateGraderRequest, _tenant: FreshFineTuningTenant) -> ValidatedGraderView:
        checked_grader(body.grader, "grader")
        return ValidatedGraderView(grader=body.grader)

    @router.post("/run")
    async def run_one_grader(body: RunGraderRequest, tenant: FreshFineTuningTenant) -> GraderRunView:
        """Grade one answer. What a grader asks of models is charged as requests of the key."""
        grader = checked_grader(body.grader, "grader")
        return GraderRunView.of(await run_grader(grader, body.answer(), key=tenant.key, models=models))

    return router
