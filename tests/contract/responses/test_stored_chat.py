"""Chat completions that are stored, as the real `openai` client sees them."""

import aiohttp
import openai
import pytest

from support.answers_stand import AnswersStand
from support.fakes.gateway_ports import BASE
from support.fakes.scripted_server import ScriptedServer, called, said
from support.gateway_stack import CHAT, HELLO
from support.openai_errors import error_of


@pytest.mark.parametrize("stream", [False, True])
async def test_a_completion_is_kept_as_it_was_told(stand: AnswersStand, stream: bool) -> None:
    script = [said("Let "), said("me see"), called(0, name="f", call="call_1"), called(0, arguments="{}")]
    async with stand.scripted(ScriptedServer(script, finish_reason="tool_calls")):
        answer = await stand.client.chat.completions.create(
            model=BASE.id, messages=HELLO, store=True, metadata={"topic": "greeting"}, stream=stream
        )
        if isinstance(answer, openai.AsyncStream):
            (made,) = {chunk.id async for chunk in answer}
        else:
            made = answer.id
    found = await stand.client.chat.completions.retrieve(made)
    (choice,) = found.choices
    assert (choice.message.content, choice.finish_reason) == ("Let me see", "tool_calls")
    assert choice.message.tool_calls is not None
    assert choice.message.tool_calls[0].to_dict() == {
        "id": "call_1",
        "type": "function",
        "function": {"name": "f", "arguments": "{}"},
    }
    assert found.usage is not None
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (7, 4)
    assert found.to_dict()["metadata"] == {"topic": "greeting"}
    messages = await stand.client.chat.completions.messages.list(made)
    assert [(message.to_dict()["role"], message.content) for message in messages.data] == [("user", "say hello to me")]


async def test_a_kept_stream_is_the_same_stream(stand: AnswersStand) -> None:
    texts = []
    for store in (False, True):
        stream = await stand.client.chat.completions.create(
            model=BASE.id, messages=HELLO, n=2, stream=True, store=store, stream_options={"include_usage": True}
        )
        told = [chunk.to_dict() async for chunk in stream]
        texts.append([{**chunk, "id": "", "created": 0} for chunk in told])
    assert texts[0] == texts[1]
    assert await stand.kept() == 1


async def test_completions_are_listed_by_model_and_metadata(stand: AnswersStand) -> None:
    made = []
    for number in range(5):
        answer = await stand.client.chat.completions.create(
            model=BASE.id, messages=HELLO, store=True, metadata={"even": str(number % 2 == 0), 'a"b': "x"}
        )
        made.append(answer.id)
    await stand.client.responses.create(model=BASE.id, input="not one of them")
    completions = stand.client.chat.completions
    ordered = sorted(made)  # all of one second: their ids decide
    page = await completions.list(limit=2)
    assert page.has_more
    listed = [found.id async for found in page]
    assert sorted(listed) == ordered
    assert [found.id async for found in await completions.list(order="desc")] == listed[::-1]
    assert {found.id async for found in await completions.list(metadata={"even": "True"})} == set(made[::2])
    assert (await completions.list(model="other")).data == []
    with pytest.raises(openai.BadRequestError):
        await completions.list(metadata={'a"b': "x"})


async def test_metadata_is_replaced(stand: AnswersStand) -> None:
    completions = stand.client.chat.completions
    made = await completions.create(model=BASE.id, messages=HELLO, store=True, metadata={"a": "1"})
    changed = await completions.update(made.id, metadata={"b": "2"})
    assert changed.to_dict()["metadata"] == {"b": "2"}
    assert (await completions.list(metadata={"a": "1"})).data == []
    assert [found.id for found in (await completions.list(metadata={"b": "2"})).data] == [made.id]
    for wrong in ({"k" * 65: "v"}, {"k": "v" * 513}, {"k": "\x00"}, {str(at): "" for at in range(17)}):
        with pytest.raises(openai.BadRequestError):
            await completions.update(made.id, metadata=wrong)
        with pytest.raises(openai.BadRequestError):
            await completions.create(model=BASE.id, messages=HELLO, store=True, metadata=wrong)


async def test_a_deleted_completion_is_gone(stand: AnswersStand) -> None:
    completions = stand.client.chat.completions
    made = await completions.create(model=BASE.id, messages=HELLO, store=True)
    deleted = await completions.delete(made.id)
    assert deleted.to_dict() == {"id": made.id, "object": "chat.completion.deleted", "deleted": True}
    with pytest.raises(openai.NotFoundError):
        await completions.retrieve(made.id)


async def test_another_projects_completion_looks_as_none(stand: AnswersStand) -> None:
    made = await stand.client.chat.completions.create(model=BASE.id, messages=HELLO, store=True)
    for other in (stand.project, stand.stranger):
        completions = other.chat.completions
        assert (await completions.list()).data == []
        with pytest.raises(openai.BadRequestError):
            await completions.list(after=made.id)
        for call in (completions.retrieve, completions.delete, completions.messages.list):
            with pytest.raises(openai.NotFoundError) as theirs:
                await call(made.id)
            with pytest.raises(openai.NotFoundError) as nobodys:
                await call("chatcmpl-nothing")
            assert str(error_of(theirs.value)).replace(made.id, "chatcmpl-nothing") == str(error_of(nobodys.value))
        with pytest.raises(openai.NotFoundError):
            await completions.update(made.id, metadata={"a": "b"})
        with pytest.raises(openai.NotFoundError):
            await other.responses.retrieve(made.id)
    with pytest.raises(openai.NotFoundError):
        await stand.client.responses.retrieve(made.id)
    assert (await stand.client.chat.completions.retrieve(made.id)).id == made.id


async def test_a_completion_that_is_not_stored_has_no_metadata(stand: AnswersStand) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await stand.client.chat.completions.create(model=BASE.id, messages=HELLO, metadata={"a": "b"})
    assert refused.value.param == "metadata"
    await stand.client.chat.completions.create(model=BASE.id, messages=HELLO)
    assert await stand.kept() == 0


async def test_messages_in_parts_are_told_as_parts(stand: AnswersStand) -> None:
    made = await stand.client.chat.completions.create(
        model=BASE.id,
        messages=[
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "hello"}]},
        ],
        store=True,
    )
    page = await stand.client.chat.completions.messages.list(made.id, limit=1)
    assert page.has_more
    first, second = [message.to_dict() async for message in page]
    assert (first["content"], first.get("content_parts")) == ("be brief", None)
    assert (second["content"], second["content_parts"]) == (None, [{"type": "text", "text": "hello"}])
    assert [first["id"], second["id"]] == [f"{made.id}-0", f"{made.id}-1"]


async def test_completions_are_made_and_listed_at_one_address(stand: AnswersStand) -> None:
    async with aiohttp.ClientSession() as session:
        answer = await session.options(f"{stand.gateway.url}{CHAT}")
        await answer.read()
        assert (answer.status, answer.headers["allow"]) == (405, "GET, POST")
