"""Workers on runs: killed, slow, side by side, cancelled, out of time."""

import asyncio
from typing import Any

import pytest
from openai.types.evals import RunRetrieveResponse

from support.evals.stand import JUDGE, EvalClients, completions, items, jsonl, rows
from tokenyard.core.clock import SystemClock
from tokenyard.core.evaluation.questions import Answered, NotAnswered, Question
from tokenyard.core.ids import ApiKeyId, OrganizationId
from tokenyard.evals.operator_store import LEASE_MS, RUN_LIMIT_MS
from tokenyard.evals.runs.run import EvalRunState

LIMIT_S = 30.0


class Died(BaseException):
    """The worker is gone: nothing catches this."""


class HeldAnswers:
    """Answers that come when a test lets them; who asks meanwhile waits."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.asked = asyncio.Event()
        self.free = asyncio.Event()
        self.at_once = self.most_at_once = 0

    async def ask(
        self, question: Question, *, model: str, key: ApiKeyId, idempotency_key: str, max_tokens: int
    ) -> Answered:
        self.asked.set()
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.free.wait()
            answered: Answered = await self._inner.ask(
                question, model=model, key=key, idempotency_key=idempotency_key, max_tokens=max_tokens
            )
        finally:
            self.at_once -= 1
        return answered


async def begun(clients: EvalClients, count: int = 6) -> tuple[str, str]:
    made = await clients.eval()
    return made, await clients.run(made, completions(items(count)))


async def found(clients: EvalClients, made: str, run: str) -> RunRetrieveResponse:
    return await clients.acme.evals.runs.retrieve(run, eval_id=made)


def outlive_lease(clients: EvalClients) -> None:
    clients.stand.clock.advance(LEASE_MS / 1000 + 1)


@pytest.mark.parametrize("dies_at", [0, 3, 9])
async def test_a_run_goes_on_where_a_worker_died_and_nothing_is_charged_twice(
    clients: EvalClients, dies_at: int
) -> None:
    """Each of six rows is two questions; the worker dies after it had an answer and before it wrote it down."""
    stand = clients.stand
    stand.answers.says = lambda _model, question: '{"result": 1}' if question.asked.get("response_format") else "x"
    made = await clients.eval(JUDGE)
    run = await clients.run(made, completions(items(6)))

    class Mortal:
        calls = 0

        async def ask(self, question: Question, **named: Any) -> Answered:
            answered = await stand.answers.ask(question, **named)
            self.calls += 1
            if self.calls > dies_at:
                raise Died
            return answered

    with pytest.raises(BaseExceptionGroup) as died:
        await stand.worker("first", answers=Mortal()).step()
    assert died.group_contains(Died)
    outlive_lease(clients)
    written = (await found(clients, made, run)).result_counts
    assert written.total == 6
    assert written.passed <= dies_at
    await stand.worker("second").step()
    ended = await found(clients, made, run)
    assert (ended.status, ended.result_counts.passed) == ("completed", 6)
    assert len(stand.answers.charged) == 12
    assert set(stand.answers.charged.values()) == {1}
    assert ended.per_model_usage[0].invocation_count == 12, "each question counts once"
    assert await stand.stored() == (1, 1, 6)


async def test_two_workers_never_have_the_same_run(clients: EvalClients) -> None:
    made, run = await begun(clients)
    held = HeldAnswers(clients.stand.answers)
    first = asyncio.create_task(clients.stand.worker("first", answers=held).step())
    await asyncio.wait_for(held.asked.wait(), LIMIT_S)
    await clients.stand.worker("second").step()
    assert clients.stand.answers.asked == []
    held.free.set()
    await first
    assert (await found(clients, made, run)).status == "completed"
    assert len(clients.stand.answers.asked) == 6
    assert held.most_at_once <= 4, "no more rows at once"


async def test_who_lost_its_lease_writes_nothing(clients: EvalClients) -> None:
    made, run = await begun(clients)
    held = HeldAnswers(clients.stand.answers)
    slow = asyncio.create_task(clients.stand.worker("slow", answers=held).step())
    await asyncio.wait_for(held.asked.wait(), LIMIT_S)
    outlive_lease(clients)
    await clients.stand.worker("other").step()
    before = (await found(clients, made, run)).to_dict()
    assert before["status"] == "completed"
    held.free.set()
    await slow
    assert (await found(clients, made, run)).to_dict() == before
    assert set(clients.stand.answers.charged.values()) == {1}


@pytest.mark.parametrize("deleted", [False, True])
async def test_a_cancelled_run_asks_nothing_more(clients: EvalClients, deleted: bool) -> None:
    clients.stand.clock.advance(SystemClock().now_ms() / 1000 - clients.stand.clock())
    made, run = await begun(clients)
    held = HeldAnswers(clients.stand.answers)
    worker = clients.stand.worker("first", answers=held, lease_ms=600, clock=SystemClock())
    working = asyncio.create_task(worker.step())
    await asyncio.wait_for(held.asked.wait(), LIMIT_S)
    ask = clients.acme.evals.runs
    await (ask.delete(run, eval_id=made) if deleted else ask.cancel(run, eval_id=made))
    await asyncio.wait_for(working, LIMIT_S)  # its answers never came
    held.free.set()
    await clients.stand.round()
    assert clients.stand.answers.asked == []
    if deleted:
        assert await clients.stand.stored() == (1, 0, 0)
    else:
        assert (await found(clients, made, run)).status == "canceled"
        assert await clients.stand.stored() == (1, 1, 6)


async def test_a_long_run_lets_others_have_their_turn(clients: EvalClients) -> None:
    made, long = await begun(clients)
    clients.stand.clock.advance(1)
    short = await clients.run(made, jsonl(rows(1)))
    worker = clients.stand.worker(turn_s=0.0)
    await worker.step()
    clients.stand.clock.advance(1)
    await worker.step()
    assert (await found(clients, made, long)).status == "in_progress"
    await clients.stand.worker().step()
    clients.stand.clock.advance(1)
    await clients.stand.worker().step()
    assert {(await found(clients, made, run)).status for run in (long, short)} == {"completed"}


async def test_who_has_many_runs_keeps_nobody_waiting(clients: EvalClients) -> None:
    made = await clients.eval()
    for _ in range(3):
        await clients.run(made, jsonl(rows(1)))
        clients.stand.clock.advance(1)
    theirs = await clients.eval(client=clients.rival)
    source: Any = jsonl(rows(1))
    await clients.rival.evals.runs.create(theirs, data_source=source)
    claimed = [await clients.stand.store.claim(f"worker {number}") for number in range(4)]
    assert [run and run.organization for run in claimed] == [
        OrganizationId(f"org_{name}") for name in ("acme", "rival", "acme", "acme")
    ]


async def test_a_run_ends_in_time(clients: EvalClients) -> None:
    made, run = await begun(clients)
    await clients.stand.worker(turn_s=0.0).step()
    clients.stand.clock.advance(RUN_LIMIT_MS / 1000 + 1)
    await clients.stand.worker().step()
    ended = await found(clients, made, run)
    assert (ended.status, ended.error.code) == (EvalRunState.FAILED, "timeout")
    assert clients.stand.answers.asked == []


async def test_what_may_be_answered_later_is_asked_again(clients: EvalClients) -> None:
    made, run = await begun(clients, 1)
    clients.stand.answers.says = lambda _model, _question: "a0"
    clients.stand.answers.fails = [NotAnswered("Rate limit reached.", passing=True)]
    await clients.stand.worker().step()
    assert (await found(clients, made, run)).result_counts.passed == 1
    made, run = await begun(clients, 1)
    clients.stand.answers.fails = [NotAnswered("Rate limit reached.", passing=True)] * 10
    await clients.stand.worker(patience_s=0.5).step()
    ended = await found(clients, made, run)
    assert (ended.status, ended.result_counts.errored) == ("completed", 1)


async def test_runs_go_with_their_time_and_evals_stay(clients: EvalClients) -> None:
    made = await clients.eval()
    run = await clients.run(made, jsonl(rows(3)))
    await clients.stand.round()
    clients.stand.clock.advance(clients.stand.settings.stored_answers_ms / 1000)
    assert (await clients.acme.evals.runs.list(made)).data == []
    await clients.stand.round()
    assert await clients.stand.stored() == (1, 0, 0)
    assert run.startswith("evalrun_")


async def test_what_is_stored_tells_nobody_what_was_said(clients: EvalClients) -> None:
    made = await clients.eval()
    await clients.run(made, jsonl(rows(1)))
    await clients.stand.round()
    async with clients.stand.database.engine.connect() as connection:
        for table in ("evals_evals", "evals_runs", "evals_items"):
            stored = (await connection.exec_driver_sql(f"SELECT * FROM {table}")).all()
            assert stored
            assert not any(text in str(stored) for text in ("question", "answer", "output_text"))
