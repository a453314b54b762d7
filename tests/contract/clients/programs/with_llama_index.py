"""LlamaIndex's `OpenAILike`."""

import json
import os
from typing import Any

from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from openai import APIStatusError

HELLO = [ChatMessage(role="user", content="say hello to me")]
QUESTION = ChatMessage(role="user", content="How is the weather in Paris?")


def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"22 degrees in {city}"


def chat(**changes: str) -> OpenAILike:
    given = {"model": os.environ["MODEL"], "api_key": os.environ["API_KEY"], "api_base": os.environ["BASE_URL"]}
    return OpenAILike(is_chat_model=True, is_function_calling_model=True, context_window=2048, **{**given, **changes})


def call_of(answer: Any) -> dict[str, object]:
    [call] = chat().get_tool_calls_from_response(answer)
    return {"name": call.tool_name, "arguments": call.tool_kwargs}


def refused(**changes: str) -> int:
    try:
        chat(**changes).chat(HELLO)
    except APIStatusError as error:
        return int(error.status_code)
    return 0


whole = chat().chat(HELLO)
streamed = "".join(part.delta or "" for part in chat().stream_chat(HELLO))
tools = [FunctionTool.from_defaults(weather)]
asked = chat().chat_with_tools(tools, chat_history=[QUESTION])
[call] = chat().get_tool_calls_from_response(asked)
result = ChatMessage(role="tool", content=weather(**call.tool_kwargs), additional_kwargs={"tool_call_id": call.tool_id})
answered = chat().chat_with_tools(tools, chat_history=[QUESTION, asked.message, result])
*_, last = chat().stream_chat_with_tools(tools, chat_history=[QUESTION])
told = {
    "retried": whole.message.content,
    "streamed": streamed,
    "call": call_of(asked),
    "answered": answered.message.content,
    "streamed_call": call_of(last),
    "tokens": whole.raw.usage.total_tokens,
    "unknown_model": refused(model="nothing"),
    "wrong_key": refused(api_key="ty-wrong"),
}
print(json.dumps(told))
