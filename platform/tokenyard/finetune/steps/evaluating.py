"""Once a model is live: base and tuned model answer the same questions through the gateway, and are compared.

Each answer is a request of the key that created the job, charged as any other. The job has succeeded before, and
whatever comes of this changes nothing about it.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from functools import partial

import msgspec

from tokenyard.core.chat_rows import RowProblem
from tokenyard.core.clock import Clock
from tokenyard.core.datasets.lines import Line, LineReader
from tokenyard.core.evaluation.general_questions import general_questions
from tokenyard.core.evaluation.questions import Answered, NotAnswered, Question, question_of
from tokenyard.finetune.job import Job
from tokenyard.finetune.ports import ModelAnswers, TrainingFiles
from tokenyard.finetune.progress import JobProgress, Note
from tokenyard.finetune.results.evaluation_file import (
    Answers,
    BothAnswers,
    GeneralAnswers,
    RowAnswers,
    evaluation_file,
    general_answers,
    row_answers,
)
from tokenyard.finetune.results.leaving import LeftFiles
from tokenyard.finetune.states import JobState
from tokenyard.storage.blobs import BlobStore

ANSWER_TOKENS = 128
GENERAL_TOKENS = 16
AT_ONCE = 4
AGAIN_S = 1.0
_LATE = "The models did not answer in time."


class Evaluating:
    """`evaluating` -> `succeeded`. May be repeated: what was answered before is not charged twice."""

    def __init__(self, *, files: TrainingFiles, blobs: BlobStore, answers: ModelAnswers, clock: Clock) -> None:
        self._files = files
        self._blobs = blobs
        self._answers = answers
        self._left = LeftFiles(files, blobs)
        self._clock = clock

    async def advance(self, job: Job) -> JobProgress:
        """Compare the models within the job's time, and leave the file that says how."""
        asked, deadline_ms = job.evaluation, job.deadline_ms
        assert asked is not None, "only a job that asked for answers comes here"
        assert deadline_ms is not None, "the settlement sets it"
        until = asyncio.get_running_loop().time() + (deadline_ms - self._clock.now_ms()) / 1000
        rows = await self._of_rows(job, asked.rows, until) if asked.rows else None
        general = await self._of_general(job, until) if asked.general else None
        file = evaluation_file(job, Answers(rows, general))
        after = msgspec.structs.replace(job, state=JobState.SUCCEEDED, evaluation_file=file.id, deadline_ms=None)
        return JobProgress(after, tuple(_notes(rows, general)), also=await self._left.write(job, [file]))

    async def _of_rows(self, job: Job, count: int, until: float) -> RowAnswers:
        try:
            questions = await self._questions(job, count)
        except FileNotFoundError:
            return row_answers(0, [], "The validation file was deleted.")
        if not questions:
            return row_answers(0, [], "No row of the validation file expects an answer in text.")
        both, reason = await self._asked(job, "row", questions, ANSWER_TOKENS, until)
        return row_answers(len(questions), both, reason)

    async def _of_general(self, job: Job, until: float) -> GeneralAnswers:
        questions = general_questions()
        both, reason = await self._asked(job, "general", questions, GENERAL_TOKENS, until)
        return general_answers(len(questions), both, reason)

    async def _questions(self, job: Job, count: int) -> list[Question]:
        """Return the first `count` questions of the validation file."""
        assert job.validation_file is not None, "rows are asked for only with a validation file"
        reader, found = LineReader(), list[Question]()
        async with aclosing(self._blobs.read_stream(self._files.path(job.organization, job.validation_file))) as chunks:
            async for chunk in chunks:
                found += _questions_of(reader.feed(chunk))
                if len(found) >= count:
                    return found[:count]
        return [*found, *_questions_of(reader.finish())][:count]

    async def _asked(
        self, job: Job, kind: str, questions: Sequence[Question], max_tokens: int, until: float
    ) -> tuple[list[BothAnswers], str | None]:
        """Return what both models answered, and why to some questions they did not."""
        room = asyncio.Semaphore(AT_ONCE)
        tasks: list[asyncio.Task[BothAnswers | str]] = []
        try:
            async with asyncio.timeout_at(until), asyncio.TaskGroup() as group:
                for number, question in enumerate(questions):
                    name = f"{job.id}-{kind}-{number}"
                    tasks.append(group.create_task(self._both(job, question, name, max_tokens, room)))
        except TimeoutError:
            pass  # what was answered by then counts
        ended = [_LATE if task.cancelled() else task.result() for task in tasks]
        both = [each for each in ended if isinstance(each, BothAnswers)]
        return both, next((each for each in ended if isinstance(each, str)), None)

    async def _both(
        self, job: Job, question: Question, name: str, max_tokens: int, room: asyncio.Semaphore
    ) -> BothAnswers | str:
        ask = partial(self._ask, question, job=job, max_tokens=max_tokens)
        async with room:
            try:
                base = await ask(model=job.model, name=f"{name}-base")
                return BothAnswers(question, base, await ask(model=str(job.model_name), name=f"{name}-tuned"))
            except NotAnswered as why:
                return str(why)

    async def _ask(self, question: Question, *, job: Job, model: str, name: str, max_tokens: int) -> Answered:
        while True:
            try:
                return await self._answers.ask(
                    question, model=model, key=job.key, idempotency_key=name, max_tokens=max_tokens
                )
            except NotAnswered as why:
                if not why.passing:
                    raise
            await asyncio.sleep(AGAIN_S)


def _questions_of(lines: Iterator[object]) -> Iterator[Question]:
    for line in lines:
        if not isinstance(line, Line):
            continue
        try:
            question = question_of(line.row)
        except RowProblem:  # by rules that the file was checked by, there is none
            continue
        if question is not None:
            yield question


def _notes(rows: RowAnswers | None, general: GeneralAnswers | None) -> Iterator[Note]:
    if rows is not None and rows.base is not None and rows.tuned is not None:
        base, tuned = rows.base, rows.tuned
        message = (
            f"{base.rows} of {rows.asked} held-out rows answered, tuned model against base: exact match "
            f"{tuned.exact_match:.2f} against {base.exact_match:.2f}, F1 {tuned.f1:.2f} against {base.f1:.2f}, "
            f"ROUGE-L {tuned.rouge_l:.2f} against {base.rouge_l:.2f}"
        )
        yield Note(message=message, source="answers")
    if general is not None and general.answered:
        message = (
            f"{general.answered} of {general.asked} general questions answered: the tuned model is right in "
            f"{general.tuned_right}, the base in {general.base_right}; {len(general.forgotten)} were forgotten"
        )
        yield Note(message=message, source="general")
    for name, part in (("held-out rows", rows), ("general questions", general)):
        if part is not None and part.reason is not None:
            yield Note(message=f"Not all {name} were answered: {part.reason}", level="warn", source=f"missing {name}")
