"""Runs of evals and their output items as the `openai` SDK has them."""

import json
from typing import Any

import openai
import pytest
from openai.types.evals import RunCancelResponse, RunCreateResponse, RunDeleteResponse, RunRetrieveResponse
from openai.types.evals.runs import OutputItemRetrieveResponse

from support.evals.stand import CHECK, JUDGE, MESSAGES, EvalClients, completions, items, jsonl, rows
from support.openai_schema import check_openai_schema, check_openai_type
from tokenyard.core.evaluation.questions import NotAnswered, Question


def checked_run(run: Any, kind: type) -> dict[str, Any]:
    """Return a run's JSON; of what has not failed, OpenAI's own replies have a null where their schema has an error."""
    sent: dict[str, Any] = run.to_dict()
    shown = {name: value for name, value in sent.items() if name != "error" or value is not None}
    filled = {"error": {"code": "", "message": ""}, **shown}
    check_openai_type(filled, kind)
    check_openai_schema(filled, "EvalRun")
    return sent


def checked_item(item: Any) -> dict[str, Any]:
    sent: dict[str, Any] = item.to_dict()
    error = sent["sample"]["error"] or {"code": "", "message": ""}
    filled = {**sent, "sample": {**sent["sample"], "error": error}}
    check_openai_type(filled, OutputItemRetrieveResponse)
    check_openai_schema(filled, "EvalRunOutputItem")
    return sent


def says_the_answer(_model: str, question: Question) -> str:
    messages: Any = question.asked["messages"]
    return str(messages[-1]["content"]).removeprefix("What is q").removesuffix("?").join(("a", ""))


async def test_rows_are_graded_as_they_are(clients: EvalClients) -> None:
    made = await clients.eval()
    source: Any = jsonl(rows(5, right=3))
    run = await clients.acme.evals.runs.create(made, name="first", metadata={"a": "b"}, data_source=source)
    sent = checked_run(run, RunCreateResponse)
    assert (run.status, run.eval_id, run.name, run.metadata) == ("queued", made, "first", {"a": "b"})
    assert (sent["data_source"], sent["model"], sent["report_url"]) == (source, "", "")
    await clients.stand.round()
    ended = await clients.acme.evals.runs.retrieve(run.id, eval_id=made)
    sent = checked_run(ended, RunRetrieveResponse)
    assert ended.status == "completed"
    assert sent["result_counts"] == {"total": 5, "passed": 3, "failed": 2, "errored": 0}
    assert sent["per_testing_criteria_results"] == [{"testing_criteria": "exact", "passed": 3, "failed": 2}]
    assert sent["per_model_usage"] == []
    assert clients.stand.answers.asked == []


async def test_what_came_of_each_row_is_listed(clients: EvalClients) -> None:
    made = await clients.eval()
    run = await clients.run(made, jsonl(rows(5, right=3)))
    of_run = clients.acme.evals.runs.output_items
    assert (await of_run.list(run, eval_id=made)).data == []
    await clients.stand.round()
    page = await of_run.list(run, eval_id=made, limit=2)
    found = [checked_item(item) async for item in page]
    assert [item["datasource_item_id"] for item in found] == [0, 1, 2, 3, 4]
    assert [item["status"] for item in found] == ["pass"] * 3 + ["fail"] * 2
    assert found[0]["datasource_item"] == {"question": "q0", "answer": "a0"}
    assert found[4]["sample"]["output"] == [{"role": "assistant", "content": "wrong"}]
    [result] = found[4]["results"]
    assert result == {"name": "exact", "type": "string_check", "score": 0, "passed": False, "sample": None}
    failed = await of_run.list(run, eval_id=made, status="fail", order="desc")
    assert [item.datasource_item_id for item in failed.data] == [4, 3]
    one = await of_run.retrieve(failed.data[0].id, eval_id=made, run_id=run)
    assert one.to_dict() == failed.data[0].to_dict()
    with pytest.raises(openai.NotFoundError):
        await of_run.retrieve("outputitem_none", eval_id=made, run_id=run)


async def test_a_model_is_asked_and_graded(clients: EvalClients) -> None:
    answers = clients.stand.answers
    answers.says = says_the_answer
    made = await clients.eval()
    sampling = {"temperature": 0.5, "seed": 7, "max_completion_tokens": 9}
    run = await clients.run(made, completions(items(3), sampling_params=sampling))
    await clients.stand.round()
    ended = checked_run(await clients.acme.evals.runs.retrieve(run, eval_id=made), RunRetrieveResponse)
    assert (ended["status"], ended["model"], ended["result_counts"]["passed"]) == ("completed", "small-model", 3)
    tokens = answers.tokens
    assert ended["per_model_usage"] == [
        {
            "model_name": "small-model",
            "invocation_count": 3,
            "prompt_tokens": 3 * tokens.prompt_tokens,
            "completion_tokens": 3 * tokens.completion_tokens,
            "total_tokens": 3 * tokens.total_tokens,
            "cached_tokens": 0,
        }
    ]
    assert {key for _, _, key in answers.asked} == {"key_acme"}
    asked = [question.asked for _, question, _ in answers.asked]
    assert {(one["temperature"], one["top_p"], one["seed"]) for one in asked} == {(0.5, 1.0, 7)}
    page = await clients.acme.evals.runs.output_items.list(run, eval_id=made, limit=1)
    sample = checked_item(page.data[0])["sample"]
    assert sample["input"] == [{"role": "user", "content": "What is q0?"}]
    assert sample["output"] == [{"role": "assistant", "content": "a0"}]
    assert (sample["finish_reason"], sample["usage"]["total_tokens"]) == ("stop", tokens.total_tokens)
    assert (sample["temperature"], sample["top_p"], sample["seed"], sample["max_completion_tokens"]) == (0.5, 1, 7, 9)


async def test_messages_may_stand_in_the_row(clients: EvalClients) -> None:
    clients.stand.answers.says = lambda _model, _question: "Blue"
    schema = {"type": "custom", "item_schema": {"type": "object"}, "include_sample_schema": True}
    made = await clients.eval(data_source_config=schema)
    talk = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Sky?"}]
    content = [{"item": {"talk": talk, "answer": "Blue"}}, {"item": {"talk": "Sky?", "answer": "Blue"}}]
    reference = {"type": "item_reference", "item_reference": "item.talk"}
    run = await clients.run(made, completions(content, input_messages=reference))
    await clients.stand.round()
    page = await clients.acme.evals.runs.output_items.list(run, eval_id=made)
    found = [checked_item(item) for item in page.data]
    assert [item["status"] for item in found] == ["pass", "error"]
    assert found[0]["sample"]["input"] == talk
    assert found[1]["sample"]["error"]["code"] == "invalid_row"
    assert [question.asked["messages"] for _, question, _ in clients.stand.answers.asked] == [talk]


async def test_a_model_may_grade(clients: EvalClients) -> None:
    clients.stand.answers.says = lambda _model, question: (
        '{"result": 0.6}' if question.asked.get("response_format") else "x"
    )
    made = await clients.eval(JUDGE, {**JUDGE, "name": "strict", "pass_threshold": 0.9})
    run = await clients.run(made, completions(items(1)))
    await clients.stand.round()
    [item] = (await clients.acme.evals.runs.output_items.list(run, eval_id=made)).data
    sent = checked_item(item)
    assert sent["status"] == "fail"
    assert [(one["name"], one["score"], one["passed"]) for one in sent["results"]] == [
        ("judge", 0.6, True),
        ("strict", 0.6, False),
    ]
    assert sent["results"][0]["sample"]["outputs"][0]["content"] == '{"result": 0.6}'
    ended = await clients.acme.evals.runs.retrieve(run, eval_id=made)
    assert ended.per_model_usage[0].invocation_count == 3, "its own answer and two grades"


async def test_what_no_model_answers_is_an_error_and_not_a_failure(clients: EvalClients) -> None:
    clients.stand.answers.says = says_the_answer
    clients.stand.answers.fails = [NotAnswered("You exceeded your current quota.")]
    made = await clients.eval()
    run = await clients.run(made, completions(items(3)))
    await clients.stand.round()
    ended = await clients.acme.evals.runs.retrieve(run, eval_id=made)
    assert ended.to_dict()["result_counts"] == {"total": 3, "passed": 2, "failed": 0, "errored": 1}
    errors = await clients.acme.evals.runs.output_items.list(run, eval_id=made, extra_query={"status": "error"})
    [item] = errors.data
    assert item.sample.error.message == "You exceeded your current quota."


async def test_rows_of_a_file(clients: EvalClients) -> None:
    made = await clients.eval()
    lines = b"".join(json.dumps(row).encode() + b"\n" for row in rows(4, right=1))
    file = await clients.upload(lines)
    run = await clients.run(made, {"type": "jsonl", "source": {"type": "file_id", "id": file.id}})
    broken = await clients.upload(lines + b'{"item": {"question": 1}}\n')
    failing = await clients.run(made, {"type": "jsonl", "source": {"type": "file_id", "id": broken.id}})
    gone = await clients.upload(lines)
    deleted = await clients.run(made, {"type": "jsonl", "source": {"type": "file_id", "id": gone.id}})
    await clients.acme.files.delete(gone.id)
    await clients.stand.round()
    ended = await clients.acme.evals.runs.retrieve(run, eval_id=made)
    assert (ended.status, ended.result_counts.passed, ended.result_counts.failed) == ("completed", 1, 3)
    failed = await clients.acme.evals.runs.retrieve(failing, eval_id=made)
    assert (failed.status, failed.error.code) == ("failed", "invalid_rows")
    assert failed.error.message.startswith("line 5: item")
    lost = await clients.acme.evals.runs.retrieve(deleted, eval_id=made)
    assert lost.error.message == "The file was deleted."


async def test_whatever_a_file_holds_its_run_ends(clients: EvalClients) -> None:
    config = {"type": "custom", "item_schema": {"additionalProperties": False}, "include_sample_schema": True}
    made = await clients.eval(data_source_config=config)
    deep = "[" * 900 + "]" * 900
    for line, said in (
        ('{"item": {}, "sample": {"output_text": "a", "b": ' + deep + "}}", "line 1: The row is not usable"),
        ('{"item": {"a\\u0000": 1}, "sample": {}}', "line 1: item has 'a\\u0000'"),
        ('{"\\u0000": 1}', "line 1: Object"),
    ):
        file = await clients.upload(line.encode())
        run = await clients.run(made, {"type": "jsonl", "source": {"type": "file_id", "id": file.id}})
        await clients.stand.round()
        failed = await clients.acme.evals.runs.retrieve(run, eval_id=made)
        assert (failed.status, failed.error.code) == ("failed", "invalid_rows")
        assert failed.error.message.startswith(said)


async def test_runs_are_listed_and_deleted(clients: EvalClients) -> None:
    made = await clients.eval()
    found = []
    for number in range(3):
        found.append(await clients.run(made, jsonl(rows(number + 1))))
        clients.stand.clock.advance(1)
    page = await clients.acme.evals.runs.list(made, limit=2)
    assert [run.id async for run in page] == found
    await clients.stand.round()
    done = await clients.acme.evals.runs.list(made, status="completed", order="desc", limit=1)
    assert [run.id for run in done.data] == [found[2]]
    assert (await clients.acme.evals.runs.list(made, status="failed")).data == []
    sent = (await clients.acme.evals.runs.delete(found[0], eval_id=made)).to_dict()
    check_openai_type(sent, RunDeleteResponse)
    assert sent == {"object": "eval.run.deleted", "deleted": True, "run_id": found[0]}
    with pytest.raises(openai.NotFoundError):
        await clients.acme.evals.runs.retrieve(found[0], eval_id=made)
    await clients.stand.round()
    assert await clients.stand.stored() == (1, 2, 5)


async def test_a_run_can_be_cancelled(clients: EvalClients) -> None:
    made = await clients.eval()
    run = await clients.run(made, completions(items(2)))
    cancelled = await clients.acme.evals.runs.cancel(run, eval_id=made)
    checked_run(cancelled, RunCancelResponse)
    assert cancelled.status == "canceled"
    await clients.stand.round()
    assert (await clients.acme.evals.runs.cancel(run, eval_id=made)).status == "canceled"
    assert clients.stand.answers.asked == []
    done = await clients.run(made, jsonl(rows(1)))
    await clients.stand.round()
    with pytest.raises(openai.BadRequestError) as refused:
        await clients.acme.evals.runs.cancel(done, eval_id=made)
    assert refused.value.code == "run_not_cancellable"


WRONG: Any = [
    ({"type": "responses"}, "data_source.type"),
    ({"type": "completions", "source": {"type": "stored_completions"}}, "data_source.source.type"),
    ({"type": "jsonl"}, "data_source.source"),
    (jsonl([]), "data_source.source.content"),
    (jsonl([{"item": {"question": "q"}}]), "data_source.source.content.0"),
    (jsonl(items(1)), "data_source.source.content.0"),
    (jsonl(rows(1)) | {"model": "small-model"}, "data_source.model"),
    ({"type": "jsonl", "source": {"type": "file_id", "id": "file-none"}}, "data_source.source.id"),
    ({"type": "jsonl", "source": {"type": "file_id", "id": "file-\x00"}}, "data_source.source.id"),
    (completions(items(1), model="a\x00"), "data_source.model"),
    (completions(items(1), model=""), "data_source.model"),
    (
        completions(items(1), input_messages={"type": "item_reference", "item_reference": "item.a}} {{item.b"}),
        "data_source.input_messages.item_reference",
    ),
    (
        completions(items(1), input_messages={"type": "item_reference", "item_reference": "sample.output_text"}),
        "data_source.input_messages.item_reference",
    ),
    (
        completions(items(1)) | {"input_messages": {"type": "template", "template": []}},
        "data_source.input_messages.template",
    ),
    (
        completions(items(1), input_messages={"type": "item_reference", "item_reference": "talk"}),
        "data_source.input_messages.item_reference",
    ),
    (
        completions(
            items(1),
            input_messages={**MESSAGES, "template": [{"role": "user", "content": "{{ sample.output_text }}"}]},
        ),
        "data_source.input_messages.template.0.content",
    ),
    (completions(items(1), model="embedder"), "data_source.model"),
    (completions(items(1), sampling_params={"temperature": 3}), "data_source.sampling_params.temperature"),
    (completions(items(1), sampling_params={"tools": []}), "data_source.sampling_params.tools"),
    (
        completions(items(1), sampling_params={"reasoning_effort": "low"}),
        "data_source.sampling_params.reasoning_effort",
    ),
]


async def test_what_is_wrong_with_a_run_is_named(clients: EvalClients) -> None:
    made = await clients.eval()
    for source, param in WRONG:
        with pytest.raises(openai.BadRequestError) as refused:
            await clients.run(made, source)
        assert refused.value.param == param
    assert await clients.stand.stored() == (1, 0, 0)


async def test_what_a_key_may_not_ask_no_run_asks(clients: EvalClients) -> None:
    made = await clients.eval(client=clients.bound)
    for source in (completions(items(1)), completions(items(1), model="none")):
        with pytest.raises((openai.PermissionDeniedError, openai.NotFoundError)) as refused:
            await clients.bound.evals.runs.create(made, data_source=source)  # type: ignore[arg-type]
        assert refused.value.code == "model_not_found"
    judged = await clients.eval({**JUDGE, "model": "none"})
    with pytest.raises(openai.NotFoundError) as unknown:
        await clients.run(judged, jsonl(rows(1)))
    assert unknown.value.param == "testing_criteria.0.model"
    plain = await clients.eval(
        {**CHECK, "input": "{{ item.question }}"},
        data_source_config={"type": "custom", "item_schema": {"type": "object"}},
    )
    with pytest.raises(openai.BadRequestError) as useless:
        await clients.run(plain, completions(items(1)))
    assert useless.value.param == "data_source.type"
    stranger = clients.acme.with_options(api_key="ty-nobody")
    with pytest.raises(openai.AuthenticationError):
        await stranger.evals.list()
