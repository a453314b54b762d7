"""Runs a grader on one answer; the models that it asks are asked in the name of the caller's key."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from functools import partial

import msgspec

from tokenyard.core.evaluation.questions import Answered, NotAnswered
from tokenyard.core.graders.grading import Grade, ModelQuestion, grade, model_questions
from tokenyard.core.graders.shapes import Grader
from tokenyard.core.graders.templates import GradedAnswer
from tokenyard.core.ids import ApiKeyId, random_text
from tokenyard.finetune.ports import ModelAnswers


class GraderRun(msgspec.Struct, frozen=True, kw_only=True):
    """`tokens` are what the models took, by name; `seconds` is how long all of it was."""

    grader: Grader
    grade: Grade
    tokens: Mapping[str, int]
    seconds: float


async def run_grader(grader: Grader, answer: GradedAnswer, *, key: ApiKeyId, models: ModelAnswers) -> GraderRun:
    """Ask what has to be asked, all of it at once, and grade; each question is a request of `key`."""
    started_at = asyncio.get_running_loop().time()
    questions = await asyncio.to_thread(model_questions, grader, answer)
    ask, run = partial(_ask, models, key), random_text()
    async with asyncio.TaskGroup() as group:
        tasks = {
            # The names of graders are no text that a header can carry.
            name: group.create_task(ask(asked, f"grader-{run}-{order}"))
            for order, (name, asked) in enumerate(questions.items())
        }
    answers = {name: task.result() for name, task in tasks.items()}
    tokens: Counter[str] = Counter()
    for name, said in answers.items():
        tokens[questions[name].model] += said.tokens.total_tokens if isinstance(said, Answered) else 0
    found = await asyncio.to_thread(grade, grader, answer, answers)
    seconds = asyncio.get_running_loop().time() - started_at
    return GraderRun(grader=grader, grade=found, tokens=tokens, seconds=seconds)


async def _ask(
    models: ModelAnswers, key: ApiKeyId, asked: ModelQuestion, idempotency_key: str
) -> Answered | NotAnswered:
    try:
        return await models.ask(
            asked.question, model=asked.model, key=key, idempotency_key=idempotency_key, max_tokens=asked.max_tokens
        )
    except NotAnswered as why:
        return why
