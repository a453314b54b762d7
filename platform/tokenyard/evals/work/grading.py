"""One row of a run: its model is asked, then the models of its graders, and what all of it comes to.

Each question has an idempotency key that follows from run, row and grader, so what was answered before a worker died
is neither asked nor charged again.
"""

import asyncio
from collections.abc import Sequence
from functools import partial

from tokenyard.core.evaluation.patience import answered_within
from tokenyard.core.evaluation.questions import Answered, NotAnswered
from tokenyard.core.graders.grading import GradingError, ModelQuestion, grade, model_questions
from tokenyard.core.graders.templates import GradedAnswer
from tokenyard.core.usage import TokenUsage
from tokenyard.evals.criteria import Criterion
from tokenyard.evals.ports import EvalAnswers
from tokenyard.evals.runs.data_source import CompletionsSource, DataSource
from tokenyard.evals.runs.run import (
    CriterionCount,
    EvalRun,
    EvalSample,
    GraderReply,
    Item,
    ItemState,
    ModelCount,
    Result,
    RunTally,
)
from tokenyard.evals.work.sampling import UnaskableRow, question_for, sample_of, unasked

PATIENCE_S = 120.0
"""For so long a question is asked again that may be answered later, such as one over a rate limit."""


class RowGrading:
    """What a run does with each of its rows."""

    def __init__(
        self,
        run: EvalRun,
        source: DataSource,
        criteria: Sequence[Criterion],
        answers: EvalAnswers,
        computing: asyncio.Lock,
        *,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """`computing` is held while a row is graded: all runs together leave time to the worker's other work."""
        self._run = run
        self._source = source
        self._criteria = criteria
        self._answers = answers
        self._computing = computing
        self._patience_s = patience_s

    async def of(self, number: int, row: Item) -> Item:
        """Return the row with what came of it."""
        sample = EvalSample(text=row.given or "")
        if isinstance(self._source, CompletionsSource):
            sample = await self._sample(self._source, number, row)
        if sample.error is not None:
            return Item(row.item, row.given, sample)
        answer = GradedAnswer(row.item, sample.text)
        results = [await self._result(one, number, place, answer) for place, one in enumerate(self._criteria)]
        return Item(row.item, row.given, sample, results)

    async def _sample(self, source: CompletionsSource, number: int, row: Item) -> EvalSample:
        try:
            question = question_for(source, row.item)
        except UnaskableRow as why:
            return unasked(source, why)
        most = source.sampling_params.max_completion_tokens
        said = await self._ask(ModelQuestion(source.model, question, most), f"{self._run.id}-{number}")
        return sample_of(source, question, said)

    async def _result(self, criterion: Criterion, number: int, place: int, answer: GradedAnswer) -> Result:
        async with self._computing:
            questions = await asyncio.to_thread(model_questions, criterion.grader, answer)
        said = {
            # The names of graders are no text that a header can carry.
            name: await self._ask(asked, f"{self._run.id}-{number}-{place}-{order}")
            for order, (name, asked) in enumerate(questions.items())
        }
        async with self._computing:
            found = await asyncio.to_thread(grade, criterion.grader, answer, said)
        return Result(
            criterion.name,
            criterion.type,
            found.reward,
            criterion.passes(found.reward) and not found.errors - {GradingError.TRUNCATED},
            [_reply(questions[name].model, answered) for name, answered in said.items()],
            sorted(found.errors),
        )

    async def _ask(self, asked: ModelQuestion, name: str) -> Answered | NotAnswered:
        ask = partial(
            self._answers.ask,
            asked.question,
            model=asked.model,
            key=self._run.key,
            idempotency_key=name,
            max_tokens=asked.max_tokens,
        )
        return await answered_within(self._patience_s, ask)


def state_of(item: Item) -> ItemState:
    """Return whether a graded row passes: it does where it passes every criterion."""
    assert item.sample is not None, "the row was graded"
    if item.sample.error is not None or any(reply.error for result in item.results for reply in result.replies):
        return ItemState.ERROR
    return ItemState.PASS if all(result.passed for result in item.results) else ItemState.FAIL


def with_item(tally: RunTally, item: Item) -> RunTally:
    """Return what has come of a run's rows, this one among them."""
    state = state_of(item)
    criteria, models = dict(tally.criteria), dict(tally.models)
    for result in item.results:
        count = criteria.get(result.name, CriterionCount())
        passed, failed = count.passed + result.passed, count.failed + (not result.passed)
        criteria[result.name] = CriterionCount(passed, failed)
    for model, usage in _answers(item):
        models[model] = models.get(model, ModelCount(0, TokenUsage(0, 0))).plus(usage)
    return RunTally(
        passed=tally.passed + (state is ItemState.PASS),
        failed=tally.failed + (state is ItemState.FAIL),
        errored=tally.errored + (state is ItemState.ERROR),
        criteria=criteria,
        models=models,
    )


def _answers(item: Item) -> list[tuple[str, TokenUsage]]:
    replies = [reply for result in item.results for reply in result.replies if reply.error is None]
    found = [(reply.model, reply.tokens) for reply in replies]
    if item.sample is not None and item.sample.model and item.sample.error is None:
        found.append((item.sample.model, item.sample.tokens))
    return found


def _reply(model: str, said: Answered | NotAnswered) -> GraderReply:
    if isinstance(said, NotAnswered):
        return GraderReply(model, "", "", TokenUsage(0, 0), str(said))
    return GraderReply(model, said.text, said.finish_reason, said.tokens)
