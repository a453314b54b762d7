"""Runs a recipe as its tenant: both models answer the held-out rows, before and after the fine-tuning job."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec

from tokenyard.cli.command import CommandFailed
from tokenyard.cli.credentials import Tenant
from tokenyard.cli.recipes.judging import ModelAnswer, right_answers, wanted_answer
from tokenyard.cli.recipes.recipe import Recipe, RecipeTest, held_out_rows
from tokenyard.cli.train import JobFollower, until_signal
from tokenyard.clients.platform_api.shapes import JobInfo
from tokenyard.clients.platform_api.tenant_api import TenantApi
from tokenyard.core.chat_rows import ChatRow

if TYPE_CHECKING:  # it takes half a second to load, which no other command needs
    from openai import AsyncOpenAI

SIDE_BY_SIDE = 8  # questions
_RETRIES = 5


class Mistake(msgspec.Struct, frozen=True):
    """A held-out row that the tuned model gets wrong."""

    question: str
    wanted: str
    answer: str


class MeasuredRecipe(msgspec.Struct, frozen=True, kw_only=True):
    """What a run measured. `base` and `tuned` are the parts of the held-out rows that each model answers right.

    `training_s` is the job's time from its creation to its end, with waiting and publishing.
    """

    recipe: str
    base_model: str
    tuned_model: str
    judge: str
    held_out_rows: int
    base: float
    tuned: float
    trained_tokens: int
    training_s: int
    mistakes: list[Mistake]


def read_measured(file: Path) -> MeasuredRecipe:
    """Read what an earlier run wrote; another content raises `msgspec.MsgspecError`."""
    return msgspec.json.decode(file.read_bytes(), type=MeasuredRecipe)


@dataclass(frozen=True)
class RecipeRun:
    """Who runs a recipe over which base model; `say` gets a line of progress at a time."""

    api: TenantApi
    client: "AsyncOpenAI"
    model: str
    say: Callable[[str], None]

    async def measure(self, recipe: Recipe) -> MeasuredRecipe:
        """Ask the base, train, ask the tuned model.

        Raises:
            ApiFailed: the platform refuses the files or the job, or is away.
            openai.APIError: it refuses a question, or is away.
            CommandFailed: the recipe has no held-out rows, or its job did not succeed.
        """
        test = recipe.test
        if test is None:
            raise CommandFailed(f"The recipe {recipe.name} has no held-out rows to measure it by.")
        rows = held_out_rows(recipe.folder / test.file)
        wanted = [wanted_answer(row.messages[-1]) for row in rows]
        base = right_answers(test.judge, wanted, await self._answers(self.model, rows, test))
        job = await self._train(recipe)
        assert job.fine_tuned_model is not None, "it succeeded"
        answers = await self._answers(job.fine_tuned_model, rows, test)
        tuned = right_answers(test.judge, wanted, answers)
        return MeasuredRecipe(
            recipe=recipe.name,
            base_model=self.model,
            tuned_model=job.fine_tuned_model,
            judge=test.judge,
            held_out_rows=len(rows),
            base=_share(base),
            tuned=_share(tuned),
            trained_tokens=job.trained_tokens or 0,
            training_s=(job.finished_at or job.created_at) - job.created_at,
            mistakes=[
                Mistake(row.messages[-2].content or "", _in_words(one), _in_words(other))
                for row, one, other, right in zip(rows, wanted, answers, tuned, strict=True)
                if not right
            ],
        )

    async def _train(self, recipe: Recipe) -> JobInfo:
        training = await self.api.upload_training_file(recipe.folder / recipe.training_file)
        validation = None
        if recipe.validation_file is not None:
            validation = (await self.api.upload_training_file(recipe.folder / recipe.validation_file)).id
        job = await self.api.create_job(
            recipe.job(model=self.model, training_file=training.id, validation_file=validation)
        )
        self.say(f"Job {job.id}: {self.model}, {job.hyperparameters}")
        follower = JobFollower(self.api, job.id, self.say)
        ended = await until_signal(follower.until_end())
        if ended is None:
            self.say(f"Cancelling job {job.id}.")
            ended = await follower.cancel()
        if ended.status != "succeeded":
            why = f"{ended.status}: {ended.error.message}" if ended.error else f"was {ended.status}."
            raise CommandFailed(f"The job {job.id} {why}")
        return ended

    async def _answers(self, model: str, rows: Sequence[ChatRow], test: RecipeTest) -> list[ModelAnswer]:
        self.say(f"Asking {model} the {len(rows)} held-out rows of {test.file}.")
        places = asyncio.Semaphore(SIDE_BY_SIDE)

        async def ask(row: ChatRow) -> ModelAnswer:
            async with places:
                return await self._ask(model, row, test.max_tokens)

        try:
            async with asyncio.TaskGroup() as group:
                asked = [group.create_task(ask(row)) for row in rows]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return [task.result() for task in asked]

    async def _ask(self, model: str, row: ChatRow, max_tokens: int) -> ModelAnswer:
        messages = [_without_weight(message) for message in msgspec.to_builtins(row.messages[:-1])]
        tools = {"tools": msgspec.to_builtins(row.tools)} if row.tools else {}
        reply = await self.client.chat.completions.create(
            model=model, messages=cast(Any, messages), max_tokens=max_tokens, temperature=0, **cast(Any, tools)
        )
        said = reply.choices[0].message
        calls = [
            (call.function.name, call.function.arguments) for call in said.tool_calls or () if call.type == "function"
        ]
        return ModelAnswer(said.content or "", calls)


async def run_recipe(recipe: Recipe, tenant: Tenant, model: str, say: Callable[[str], None]) -> MeasuredRecipe:
    """Run a recipe over a base model.

    Raises:
        ApiFailed: the platform refuses the files or the job, or is away.
        CommandFailed: it refuses a question, the recipe has no held-out rows, or its job did not succeed.
    """
    import openai  # noqa: PLC0415

    try:
        async with openai.AsyncOpenAI(
            base_url=f"{tenant.connection.url}/v1", api_key=tenant.key, max_retries=_RETRIES
        ) as client:
            return await RecipeRun(TenantApi(tenant.connection, tenant.key), client, model, say).measure(recipe)
    except openai.APIError as error:
        raise CommandFailed(f"The API did not answer a question: {error.message}") from error


def _without_weight(message: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in message.items() if name != "weight" and value is not None}


def _share(right: Sequence[bool]) -> float:
    return round(sum(right) / len(right), 4)


def _in_words(answer: ModelAnswer) -> str:
    return answer.text or "; ".join(f"{name}({arguments})" for name, arguments in answer.calls)
