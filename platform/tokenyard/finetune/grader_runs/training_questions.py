"""Asks models what graders want to know while a job trains, for training reaches nothing but its attempt's folder.

Each question is a request of the key that created the job, charged as any other. Its idempotency key follows from the
job and from what is asked: a job has it answered once, whichever of its steps and attempts ask it and whoever dies.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial

import msgspec

from tokenyard.core.evaluation.patience import answered_within
from tokenyard.core.evaluation.questions import Answered, NotAnswered
from tokenyard.core.graders.grading import ModelQuestion
from tokenyard.core.graders.questions import QuestionReply, Questions
from tokenyard.core.graders.shapes import Grader, asked_models
from tokenyard.core.training import ANSWERS_FOLDER, QUESTIONS_FOLDER, job_folder
from tokenyard.finetune.job import Job
from tokenyard.finetune.ports import ModelAnswers
from tokenyard.finetune.progress import JobProgress, Note
from tokenyard.storage.blobs import BlobStore

AT_ONCE = 4
TURN_S = 15.0
"""Then the job is looked at again: it may have been cancelled meanwhile."""
PATIENCE_S = 120.0
_LOG = logging.getLogger(__name__)
_QUESTIONS = msgspec.json.Decoder(dict[str, ModelQuestion])


class TrainingQuestions:
    """A step of a job whose training may ask, before which it is answered."""

    def __init__(
        self,
        step: Callable[[Job], Awaitable[JobProgress]],
        blobs: BlobStore,
        answers: ModelAnswers,
        *,
        turn_s: float = TURN_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._step = step
        self._blobs = blobs
        self._answers = answers
        self._turn_s = turn_s
        self._patience_s = patience_s

    async def advance(self, job: Job) -> JobProgress:
        grader = None if job.hyperparameters is None else job.hyperparameters.grader
        if grader is None or not asked_models(grader):
            return await self._step(job)
        notes = await self._answer(job, grader)
        return JobProgress(job, notes).then(await self._step(job))

    async def _answer(self, job: Job, grader: Grader) -> tuple[Note, ...]:
        """Answer what the current attempt asks, as far as a turn goes; return what there is to tell of it."""
        folder = job_folder(job.organization, job.id, job.attempt)
        until = asyncio.get_running_loop().time() + self._turn_s
        notes = list[Note]()
        for name in await self._blobs.names(f"{folder}/{QUESTIONS_FOLDER}"):
            asked, answered = f"{folder}/{QUESTIONS_FOLDER}/{name}", f"{folder}/{ANSWERS_FOLDER}/{name}"
            if not await self._blobs.exists(answered):
                questions = await self._questions(asked)
                said = await self._said(job, grader, questions, until)
                if len(said) < len(questions):
                    break
                await self._blobs.write(answered, msgspec.json.encode(said))
                notes += _notes(name, said)
            await self._blobs.delete(asked)
        return tuple(notes)

    async def _questions(self, path: str) -> Questions:
        try:
            return _QUESTIONS.decode(await self._blobs.read(path))
        except msgspec.MsgspecError as error:
            _LOG.error("the questions %s are malformed: %s", path, error)
            return {}

    async def _said(self, job: Job, grader: Grader, questions: Questions, until: float) -> dict[str, QuestionReply]:
        """Return what was answered before the turn was over, by the ids of the questions."""
        waiting, said = deque(questions.items()), dict[str, QuestionReply]()
        allowed = asked_models(grader)

        async def work() -> None:
            while waiting and asyncio.get_running_loop().time() < until:
                identity, question = waiting.popleft()
                said[identity] = QuestionReply.of(
                    await self._ask(job, identity, question)
                    if question.model in allowed
                    else NotAnswered("The grader does not ask this model.")
                )

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(work())
        return said

    async def _ask(self, job: Job, identity: str, asked: ModelQuestion) -> Answered | NotAnswered:
        ask = partial(
            self._answers.ask,
            asked.question,
            model=asked.model,
            key=job.key,
            idempotency_key=f"{job.id}-{identity}",
            max_tokens=asked.max_tokens,
        )
        return await answered_within(self._patience_s, ask)


def _notes(name: str, said: dict[str, QuestionReply]) -> list[Note]:
    missing = [one for one in said.values() if one.answered is None]
    if not missing:
        return []
    message = f"{len(missing)} of {len(said)} questions of the grader were not answered: {missing[0].why_not}"
    return [Note(message=message, level="warn", source=f"questions:{name}")]
