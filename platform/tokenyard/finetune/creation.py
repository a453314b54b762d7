"""Creates a job: files, model and price are right, and the worst case is paid for, or nothing is left behind.

The worst case is `epochs x` the bound of the dataset's tokens: UTF-8 bytes of its text plus what the chat template
adds at most. No tokenizer makes more tokens than bytes, so a job never costs more than was reserved. Once its files
are checked and counted, only what they cost stays reserved. A row of DPO is two conversations, each with what both
answers follow; one of reinforcement fine-tuning is as many as it is given answers, each as long as it may become.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import msgspec

from tokenyard.core.clock import Clock
from tokenyard.core.errors import (
    BudgetInUse,
    Conflict,
    InvalidRequest,
    ModelNotFound,
    NotFound,
    QuotaExceeded,
    Unavailable,
)
from tokenyard.core.evaluation.askable import CallableModels, check_grader_models
from tokenyard.core.ids import FileId, OrganizationId, new_job_id
from tokenyard.core.models import BaseModel, ModelTask
from tokenyard.core.money import Price, PriceLookup, training_cost
from tokenyard.core.principal import Principal
from tokenyard.core.training import Hyperparameters, LoraSettings, TrainingLimits
from tokenyard.core.usage import DEFAULT_TIER
from tokenyard.finetune.job import Job, JobError
from tokenyard.finetune.job_request import MAX_SEED, JobRequest
from tokenyard.finetune.methods import METHODS
from tokenyard.finetune.methods.adapter import ADAPTER
from tokenyard.finetune.methods.dataset import DatasetSummary
from tokenyard.finetune.methods.reinforcement import GRADER_PLACE
from tokenyard.finetune.planning.estimate import Estimate, Past, machine_kind
from tokenyard.finetune.ports import (
    OrganizationSlugs,
    TrainableModels,
    TrainingFile,
    TrainingFiles,
    TrainingPlans,
    TrainingReservations,
)
from tokenyard.finetune.progress import JobChanged, JobProgress, Note, fail
from tokenyard.finetune.scheduling import TrainingPolicy
from tokenyard.finetune.states import JobState
from tokenyard.finetune.steps.starting import StartingPoint, StartingPoints
from tokenyard.finetune.store import JobStore
from tokenyard.storage.quota import StorageQuota

RESERVE_TIMEOUT_S = 10.0
EARLIER_WAIT_S = RESERVE_TIMEOUT_S + 2.0
EARLIER_INTERVAL_S = 0.1
_SOON = {"retry-after": "1"}


class _Work(NamedTuple):
    """What a job is to do, and at most: the tokens that it trains on, and what its grader asks of models."""

    tokens: int
    steps: int = 0
    questions: int = 0
    hyperparameters: Hyperparameters | None = None
    lora: LoraSettings | None = None


class JobCreation:
    """Turns a request into a job that the worker takes up."""

    def __init__(
        self,
        *,
        jobs: JobStore,
        files: TrainingFiles,
        models: TrainableModels,
        callable_models: CallableModels,
        prices: PriceLookup,
        reservations: TrainingReservations,
        organizations: OrganizationSlugs,
        plans: TrainingPlans,
        policy: TrainingPolicy,
        quota: StorageQuota,
        past: Past,
        starts: StartingPoints,
        clock: Clock,
        earlier_wait_s: float = EARLIER_WAIT_S,
    ) -> None:
        """`earlier_wait_s`: how long one creation waits for an earlier one under the same idempotency key."""
        self._jobs = jobs
        self._files = files
        self._models = models
        self._callable_models = callable_models
        self._prices = prices
        self._reservations = reservations
        self._organizations = organizations
        self._plans = plans
        self._policy = policy
        self._quota = quota
        self._past = past
        self._starts = starts
        self._clock = clock
        self._earlier_wait_s = earlier_wait_s

    async def create(self, principal: Principal, request: JobRequest, idempotency_key: str | None = None) -> Job:
        """Create a job; under an idempotency key that has one, return that job.

        Raises:
            InvalidRequest: a field is wrong, a file is not a training file, or the key was used for another request.
            Conflict: the job of this key is still being created.
            ModelNotFound: there is no such base model, and no such fine-tuned model of the organization.
            PermissionDenied: the caller may not use the model.
            QuotaExceeded: the worst case is not covered, there is no room for what the job makes, or the organization
                is blocked.
            BudgetInUse: it is not covered now; nothing is left behind.
            RateLimited: too many unfinished jobs.
            Unavailable: the money could not be reserved now.
        """
        principal.check_not_blocked()
        request.check()

        async def plan() -> list[Job]:
            return [(await self.planned(principal, request)).job]

        [job] = await self.create_all(principal.organization, plan, request.digest, idempotency_key)
        return job

    async def create_all(
        self,
        organization: OrganizationId,
        plan: Callable[[], Awaitable[list[Job]]],
        request_digest: str,
        idempotency_key: str | None,
    ) -> list[Job]:
        """Create the jobs that `plan` returns, or none of them; raises what `create` and `plan` do.

        Under an idempotency key that has some, return those; `request_digest` tells whether they were asked for alike.
        """
        if earlier := await self._earlier(organization, request_digest, idempotency_key):
            return earlier
        jobs = await plan()
        if idempotency_key is not None:
            named = {"idempotency_key": idempotency_key, "request_digest": request_digest}
            jobs = [msgspec.structs.replace(jobs[0], **named), *jobs[1:]]
        limits = (await self._plans.training_terms([organization]))[organization].limits
        for job in jobs:
            _check_day(limits, job)
        if await self._jobs.begin(organization, jobs, max_unfinished=limits.unfinished):
            return await self._paid_for(organization, jobs)
        earlier = await self._earlier(organization, request_digest, idempotency_key)  # it began at the same moment
        if not earlier:
            raise _still_creating()
        return earlier

    async def estimate(self, principal: Principal, request: JobRequest) -> Estimate:
        """Return what the job of a request would take; raises what creating it would, but for money and limits."""
        request.check()
        planned = await self.planned(principal, request)
        job = planned.job
        past = await self._past(job.model, job.method, machine_kind(self._policy.resources))
        if past is None or job.hyperparameters is None:
            return planned
        tokens = min(job.reserved_tokens, round(job.reserved_tokens * past.tokens_of_bound))
        return msgspec.structs.replace(
            planned,
            expected_tokens=tokens,
            expected_cost=training_cost(planned.price, tokens),
            seconds=tokens / past.tokens_per_s,
        )

    async def _earlier(self, organization: OrganizationId, request_digest: str, key: str | None) -> list[Job]:
        """Return the jobs that were created under `key`, once that is done; none where there are none."""
        if key is None:
            return []
        try:
            async with asyncio.timeout(self._earlier_wait_s):
                while jobs := await self._jobs.created_with(organization, key):
                    if jobs[0].request_digest != request_digest:
                        raise InvalidRequest(
                            "This Idempotency-Key was used for another request.", code="idempotency_key_reused"
                        )
                    if jobs[0].state is not JobState.CREATING:
                        return jobs
                    await asyncio.sleep(EARLIER_INTERVAL_S)
        except TimeoutError:
            raise _still_creating() from None
        return []

    async def planned(self, principal: Principal, request: JobRequest) -> Estimate:
        """Return the job of a checked request as it would be created."""
        now_ms = self._clock.now_ms()
        start = await self._start(principal, request)
        model, listed = self._model_and_price(request.model if start is None else start.base, now_ms)
        principal.check_model(request.model if start is None else start.name)
        if (grader := request.grader) is not None:
            await check_grader_models(self._callable_models, principal, grader, GRADER_PLACE)
        price = principal.price_of(listed, DEFAULT_TIER, now_ms)
        work = await (
            self._training(principal, request, model, start)
            if request.adapter is None
            else self._taking_in(principal, request, model)
        )
        job = Job(
            id=new_job_id(),
            organization=principal.organization,
            project=principal.project,
            key=principal.key,
            organization_slug=await self._organizations.slug(principal.organization),
            created_at_ms=now_ms,
            model=model.id,
            suffix=request.effective_suffix,
            seed=secrets.randbelow(MAX_SEED) if request.seed is None else request.seed,
            training_file=FileId(request.training_file),
            validation_file=FileId(request.validation_file) if request.validation_file else None,
            method=request.method_name,
            publish_if_worse=request.publish_if_worse or False,
            evaluation=request.asked_evaluation,
            integrations=request.asked_integrations,
            wandb=request.asked_wandb,
            callable_checkpoints=request.callable_checkpoints or 0,
            hyperparameters=work.hyperparameters,
            lora=work.lora,
            metadata=request.metadata or {},
            price=price.id,
            reserved_tokens=work.tokens,
            bound_tokens=work.tokens,
            reserved_amount=training_cost(price, work.tokens),
            admitted_at_ms=now_ms,
        )
        return Estimate(job=job, price=price, steps=work.steps, questions=work.questions)

    async def _start(self, principal: Principal, request: JobRequest) -> StartingPoint | None:
        """Return the own fine-tuned model that is to be trained further; None where it is a base model."""
        if not request.model.startswith("ft:"):
            return None
        start = await self._starts.find(principal.organization, request.model)
        if start is None:
            raise _not_trainable(request.model)
        if request.adapter is not None:
            raise InvalidRequest("An adapter is taken in for a base model, not for a fine-tuned one.", param="model")
        return start

    async def _training(
        self, principal: Principal, request: JobRequest, model: BaseModel, start: StartingPoint | None
    ) -> _Work:
        # What it makes must find room; how large that is, its rank and layers decide.
        await self._quota.check(principal.organization, 1, param="training_file")
        summary = await self._dataset(principal, request, request.training_file, "training_file")
        held_out_rows = 0
        if request.validation_file is not None:
            held_out_rows = (await self._dataset(principal, request, request.validation_file, "validation_file")).rows
        asked = request.hyperparameters_asked
        multiplier = model.training.multiplier(request.method_name)
        resolved = asked.resolved(summary.rows, auto_multiplier=multiplier)
        hyperparameters = msgspec.structs.replace(resolved, grader=request.grader)
        lora = asked.lora(
            self._models.rules(model.id), None if start is None else start.lora, where=request.hyperparameters_place
        )
        conversations = next(one.conversations for one in METHODS if one.name == summary.method)
        bound = summary.token_bound(
            template_tokens=conversations * model.template_tokens,
            template_tokens_per_message=model.template_tokens_per_message,
        )
        tokens = hyperparameters.most_tokens(rows=summary.rows, tokens=bound)
        steps = asked.steps(hyperparameters, summary.rows)
        questions = hyperparameters.most_questions(rows=summary.rows, held_out_rows=held_out_rows)
        return _Work(tokens, steps, questions, hyperparameters, lora)

    async def _taking_in(self, principal: Principal, request: JobRequest, model: BaseModel) -> _Work:
        """Take in an adapter: nothing is trained, so nothing is paid for but what is asked of it later."""
        file = await self._file(principal, request.training_file, "training_file")
        if file.purpose != ADAPTER:
            raise InvalidRequest(
                f"The file {request.training_file} must have the purpose '{ADAPTER}'.", param="training_file"
            )
        await self._quota.check(principal.organization, file.bytes, param="training_file")
        assert request.adapter is not None, "the caller has looked"
        return _Work(tokens=0, lora=request.adapter.lora(self._models.rules(model.id)))

    def _model_and_price(self, name: str, at_ms: int) -> tuple[BaseModel, Price]:
        model = self._models.get(name)
        if model is not None and model.task is not ModelTask.CHAT:
            raise InvalidRequest(f"The model `{name}` makes embeddings. It cannot be fine-tuned.", param="model")
        if model is None or model.max_lora_rank == 0:
            raise _not_trainable(name)
        price = self._prices.price(name, fine_tuned=False, at_ms=at_ms)
        # The result could not go live without a price of its own, so training it would only cost.
        if price is None or self._prices.price(name, fine_tuned=True, at_ms=at_ms) is None:
            raise InvalidRequest(f"The model `{name}` has no price for fine-tuning.", param="model")
        return model, price

    async def _dataset(self, principal: Principal, request: JobRequest, file: str, param: str) -> DatasetSummary:
        stored = await self._file(principal, file, param)
        if stored.summary is None:
            raise InvalidRequest(f"The file {file} must have the purpose 'fine-tune'.", param=param)
        summary = msgspec.convert(stored.summary, DatasetSummary)
        if summary.method != request.method_name:
            raise InvalidRequest(f"The file {file} is for the method '{summary.method}'.", param=param)
        return summary

    async def _file(self, principal: Principal, file: str, param: str) -> TrainingFile:
        try:
            return await self._files.get(principal.organization, FileId(file))
        except NotFound as error:
            raise InvalidRequest(error.message, code="file_not_found", param=param) from error

    async def _paid_for(self, organization: OrganizationId, jobs: Sequence[Job]) -> list[Job]:
        amounts = {job.id: job.reserved_amount for job in jobs}
        try:
            async with asyncio.timeout(RESERVE_TIMEOUT_S):
                await self._reservations.reserve(organization, jobs[0].project, jobs[0].key, amounts)
        except (QuotaExceeded, BudgetInUse):
            await self._jobs.discard(organization, jobs)
            raise
        except BaseException as error:
            # Not known whether anything was reserved: end the jobs as ones that failed, and their end releases it.
            await self._abandon(organization, jobs)
            if isinstance(error, TimeoutError):
                raise Unavailable("The cost could not be reserved in time.", retry_after_s=5) from error
            raise
        try:
            return await self._jobs.update(organization, [(job, self._begun(job)) for job in jobs])
        except JobChanged as error:
            raise Unavailable("Creating the job took too long; it was given up.", retry_after_s=5) from error

    def _begun(self, job: Job) -> JobProgress:
        after = msgspec.structs.replace(
            job,
            state=JobState.VALIDATING,
            deadline_ms=job.created_at_ms + int(self._policy.validation_timeout_s * 1000),
        )
        notes = (
            Note(message=f"Created fine-tuning job: {job.id}", source="created"),
            Note(
                message=f"Validating {'adapter' if job.takes_in else 'training'} file: {job.training_file}",
                source="validating",
            ),
        )
        return JobProgress(after, notes)

    async def _abandon(self, organization: OrganizationId, jobs: Sequence[Job]) -> None:
        error = JobError("reservation_failed", "The cost of the job could not be reserved.")
        note = Note(message=error.message, level="error")
        for job in jobs:
            with contextlib.suppress(JobChanged):  # the worker has ended it already
                await self._jobs.update(organization, [(job, JobProgress(fail(job, error).job, (note,)))])


def _check_day(limits: TrainingLimits, job: Job) -> None:
    """Refuse a job that could never start."""
    if limits.tokens_per_day is not None and job.reserved_tokens > limits.tokens_per_day:
        raise InvalidRequest(
            f"The job may train up to {job.reserved_tokens} tokens; your plan has {limits.tokens_per_day} a day.",
            code="training_tokens_limit_exceeded",
            param="training_file",
        )


def _not_trainable(name: str) -> ModelNotFound:
    return ModelNotFound(f"The model `{name}` does not exist or cannot be fine-tuned.", param="model")


def _still_creating() -> Conflict:
    return Conflict("The job of this Idempotency-Key is still being created. Please try again.", headers=_SOON)
