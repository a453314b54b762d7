"""Other people's clients, as they come: each chats, streams, calls a tool, retries and says what went wrong."""

import asyncio
import json

import pytest

from contract.clients.conftest import TIMEOUT_S, RunProgram
from support.gateway_stack import GatewayStack, until

PROGRAMS = ("with_langchain.py", "with_litellm.py", "with_llama_index.py", "with_openai.mjs", "with_vercel_ai.mjs")
WORDS = "word1 word2 word3 word4 word5 word6 word7 word8"
CALL = {"name": "weather", "arguments": {"city": "Paris"}}
RESULT = "22 degrees in Paris"

pytestmark = pytest.mark.timeout(180)


@pytest.mark.parametrize("program", PROGRAMS)
async def test_it_works_unchanged(gateway: GatewayStack, run_program: RunProgram, program: str) -> None:
    gateway.server.behaviour.call = ("weather", json.dumps(CALL["arguments"]))
    gateway.server.behaviour.status = 503
    running = asyncio.create_task(run_program(program))
    try:
        await until(lambda: running.done() or gateway.server.log, limit_s=TIMEOUT_S)  # some take long to load
    except TimeoutError:
        running.cancel()
        raise
    gateway.server.behaviour.status = 200
    told = await running
    assert told["retried"].strip() == WORDS
    assert told["streamed"].strip() == WORDS
    assert told["call"] == told["streamed_call"] == CALL
    assert told["answered"].strip() == WORDS
    assert told["tokens"] == 12
    assert (told["unknown_model"], told["wrong_key"]) == (404, 401)

    refused, retried, streamed, called, answered, streamed_call = [sent.body for sent in gateway.server.log]
    assert refused["messages"] == retried["messages"] == streamed["messages"]
    assert called["messages"] == streamed_call["messages"]
    assert streamed["stream"] is streamed_call["stream"] is True
    [tool] = called["tools"]
    assert tool["function"]["parameters"]["properties"].keys() == {"city"}
    *_, call, result = answered["messages"]
    assert [json.loads(one["function"]["arguments"]) for one in call["tool_calls"]] == [CALL["arguments"]]
    assert result["role"] == "tool"
    assert result["tool_call_id"] == call["tool_calls"][0]["id"]
    assert RESULT in json.dumps(result["content"])
    settled = await gateway.settled(6)
    assert {one.usage.completion_tokens for one in settled[1:]} == {8}
