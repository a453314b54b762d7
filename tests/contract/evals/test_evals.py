"""Evals as the `openai` SDK makes, lists, changes and deletes them."""

import json
from typing import Any

import httpx
import openai
import pytest
from openai.types import EvalCreateResponse, EvalDeleteResponse, EvalListResponse, EvalUpdateResponse

from support.evals.stand import CHECK, CONFIG, JUDGE, EvalClients, jsonl, rows
from support.openai_errors import error_of
from support.openai_schema import check_openai_schema, check_openai_type

SIMILAR = {
    "type": "text_similarity",
    "name": "near",
    "input": "{{ sample.output_text }}",
    "reference": "{{ item.answer }}",
    "evaluation_metric": "fuzzy_match",
    "pass_threshold": 0.8,
}
LABEL = {
    "type": "label_model",
    "name": "label",
    "model": "small-model",
    "input": [{"role": "user", "content": "Is {{ sample.output_text }} polite?"}],
    "labels": ["yes", "no"],
    "passing_labels": ["yes"],
}
MULTI = {
    "type": "multi",
    "name": "many",
    "graders": {f"g{number}": CHECK for number in range(16)},
    "calculate_output": "g0",
    "pass_threshold": 1,
}


async def test_an_eval_is_as_openai_has_it(clients: EvalClients) -> None:
    criteria: Any = [CHECK, SIMILAR, LABEL, {**JUDGE, "pass_threshold": 0.7}]
    config: Any = CONFIG
    made = await clients.acme.evals.create(
        name="Capitals", metadata={"team": "blue"}, data_source_config=config, testing_criteria=criteria
    )
    sent = made.to_dict()
    check_openai_type(sent, EvalCreateResponse)
    check_openai_schema(sent, "Eval")
    assert made.id.startswith("eval_")
    assert (made.name, made.metadata, sent["testing_criteria"]) == ("Capitals", {"team": "blue"}, criteria)
    schema: Any = sent["data_source_config"]
    assert schema["schema"]["properties"]["item"] == CONFIG["item_schema"]
    assert schema["schema"]["required"] == ["item", "sample"]
    assert (await clients.acme.evals.retrieve(made.id)).to_dict() == sent


async def test_a_name_and_metadata_can_be_changed(clients: EvalClients) -> None:
    made = await clients.eval(name="Old", metadata={"a": "b"})
    renamed = await clients.acme.evals.update(made, name="New")
    check_openai_type(renamed.to_dict(), EvalUpdateResponse)
    assert (renamed.name, renamed.metadata) == ("New", {"a": "b"})
    changed = await clients.acme.evals.update(made, metadata={"c": "d"})
    assert (changed.name, changed.metadata) == ("New", {"c": "d"})
    assert (await clients.acme.evals.update(made, metadata=None)).metadata == {}


async def test_evals_are_listed_in_pages(clients: EvalClients) -> None:
    made = []
    for number in range(5):
        made.append(await clients.eval(name=str(number)))
        clients.stand.clock.advance(1)
    page = await clients.acme.evals.list(limit=2)
    sent = page.to_dict()
    check_openai_schema(sent, "EvalList")
    check_openai_type(sent["data"][0], EvalListResponse)  # type: ignore[index]
    assert [one.id async for one in page] == made
    newest = await clients.acme.evals.list(limit=2, order="desc", after=made[3])
    assert [one.id for one in newest.data] == [made[2], made[1]]
    await clients.acme.evals.update(made[0], name="changed")
    changed = await clients.acme.evals.list(limit=1, order="desc", order_by="updated_at")
    assert [one.id for one in changed.data] == [made[0]]
    with pytest.raises(openai.BadRequestError) as unknown:
        await clients.acme.evals.list(after="eval_none")
    assert unknown.value.param == "after"


async def test_nobody_sees_those_of_others(clients: EvalClients) -> None:
    made = await clients.eval()
    run = await clients.run(made, jsonl(rows(1)))
    source: Any = jsonl(rows(1))
    for stranger in (clients.rival, clients.project):
        assert (await stranger.evals.list()).data == []
        own = await clients.eval(client=stranger)
        for ask in (
            stranger.evals.retrieve(made),
            stranger.evals.update(made, name="mine"),
            stranger.evals.delete(made),
            stranger.evals.runs.list(made),
            stranger.evals.runs.create(made, data_source=source),
            stranger.evals.runs.retrieve(run, eval_id=made),
            stranger.evals.runs.retrieve(run, eval_id=own),
            stranger.evals.runs.cancel(run, eval_id=made),
            stranger.evals.runs.delete(run, eval_id=made),
            stranger.evals.runs.output_items.list(run, eval_id=made),
            stranger.evals.runs.output_items.retrieve("outputitem_1", eval_id=made, run_id=run),
        ):
            with pytest.raises(openai.NotFoundError):
                await ask
    assert (await clients.acme.evals.retrieve(made)).id == made


async def test_a_deleted_eval_leaves_nothing(clients: EvalClients) -> None:
    made = await clients.eval()
    await clients.run(made, jsonl(rows(3)))
    await clients.stand.round()
    assert await clients.stand.stored() == (1, 1, 3)
    sent = (await clients.acme.evals.delete(made)).to_dict()
    check_openai_type(sent, EvalDeleteResponse)
    assert sent == {"object": "eval.deleted", "deleted": True, "eval_id": made}
    for ask in (clients.acme.evals.retrieve(made), clients.acme.evals.delete(made)):
        with pytest.raises(openai.NotFoundError):
            await ask
    await clients.stand.round()
    assert await clients.stand.stored() == (0, 0, 0)


WRONG: Any = [
    ({"data_source_config": {"type": "logs"}}, "data_source_config.type", "unsupported_parameter"),
    ({"data_source_config": {"type": "stored_completions"}}, "data_source_config.type", "unsupported_parameter"),
    ({"data_source_config": {"type": "custom"}}, "data_source_config.item_schema", "missing_required_parameter"),
    ({"data_source_config": {**CONFIG, "other": 1}}, "data_source_config.other", "unknown_parameter"),
    (
        {"data_source_config": {"type": "custom", "item_schema": {"properties": {"a": {"pattern": "a+"}}}}},
        "data_source_config.item_schema.properties.a.pattern",
        "invalid_item_schema",
    ),
    ({"testing_criteria": []}, "testing_criteria", None),
    ({"testing_criteria": [CHECK, CHECK]}, "testing_criteria.1.name", None),
    ({"testing_criteria": [CHECK | {"name": "a\x00"}]}, "testing_criteria.0.name", "invalid_grader"),
    ({"testing_criteria": [MULTI | {"name": str(number)} for number in range(3)]}, "testing_criteria", None),
    ({"testing_criteria": [CHECK | {"pass_threshold": 1}]}, "testing_criteria.0.pass_threshold", None),
    ({"testing_criteria": [SIMILAR | {"pass_threshold": "a"}]}, "testing_criteria.0.pass_threshold", None),
    (
        {"testing_criteria": [{"type": "python", "name": "code", "source": "def grade(): return 1"}]},
        "testing_criteria.0.type",
        "grader_not_available",
    ),
    (
        {"data_source_config": {**CONFIG, "include_sample_schema": False}},
        "testing_criteria.0",
        None,
    ),
    ({"name": "n" * 256}, "name", None),
    ({"other": 1}, "other", None),
]


async def test_what_is_wrong_is_named(clients: EvalClients) -> None:
    for fields, param, code in WRONG:
        body = {"data_source_config": CONFIG, "testing_criteria": [CHECK], **fields}
        with pytest.raises(openai.BadRequestError) as refused:
            await clients.acme.post("/evals", body=body, cast_to=object)
        assert refused.value.param == param
        assert code is None or refused.value.code == code
        assert error_of(refused.value)["type"] == "invalid_request_error"
    assert await clients.stand.stored() == (0, 0, 0)


async def test_what_no_json_could_give_back_is_refused(clients: EvalClients) -> None:
    """The SDK itself would not send it."""
    made = await clients.eval()
    body = {"data_source_config": CONFIG, "testing_criteria": [CHECK]}
    deep: Any = "x"
    for _ in range(100):
        deep = {"properties": {"a": deep}}
    wrong = [
        ("", body | {"name": "\ud800"}, "name"),
        ("", body | {"metadata": {"a": "\ud800"}}, "metadata.a"),
        ("", body | {"testing_criteria": [CHECK | {"reference": "\ud800"}]}, "testing_criteria"),
        ("", body | {"data_source_config": CONFIG | {"item_schema": deep}}, "data_source_config"),
        (f"/{made}/runs", {"data_source": jsonl([{"item": {"question": "\ud800"}}])}, "data_source"),
        (f"/{made}/runs", {"data_source": jsonl([{"item": {"question": float("nan")}}])}, "data_source"),
    ]
    headers = {"authorization": "Bearer ty-acme", "content-type": "application/json"}
    async with httpx.AsyncClient(base_url=str(clients.acme.base_url), headers=headers) as http:
        for path, sent, param in wrong:
            reply = await http.post(f"evals{path}", content=json.dumps(sent))
            assert reply.status_code == 400
            assert reply.json()["error"]["param"] == param
