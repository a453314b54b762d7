"""LangChain's `ChatOpenAI`."""

import json
import os

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from openai import APIStatusError


def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"22 degrees in {city}"


tools = [tool(weather)]


def chat(**changes: str) -> ChatOpenAI:
    given = {"model": os.environ["MODEL"], "api_key": os.environ["API_KEY"], "base_url": os.environ["BASE_URL"]}
    return ChatOpenAI(**{**given, **changes})


def call_of(message: AIMessage) -> dict[str, object]:
    [call] = message.tool_calls
    return {"name": call["name"], "arguments": call["args"]}


def refused(**changes: str) -> int:
    try:
        chat(**changes).invoke("say hello to me")
    except APIStatusError as error:
        return int(error.status_code)
    return 0


whole = chat().invoke("say hello to me")
streamed = "".join(str(chunk.content) for chunk in chat().stream("say hello to me"))
calling = chat().bind_tools(tools)
question: list[BaseMessage] = [HumanMessage("How is the weather in Paris?")]
asked = calling.invoke(question)
answered = calling.invoke([*question, asked, tools[0].invoke(asked.tool_calls[0])])
first, *rest = calling.stream(question)
told = {
    "retried": whole.content,
    "streamed": streamed,
    "call": call_of(asked),
    "answered": answered.content,
    "streamed_call": call_of(sum(rest, first)),
    "tokens": whole.usage_metadata["total_tokens"],
    "unknown_model": refused(model="nothing"),
    "wrong_key": refused(api_key="ty-wrong"),
}
print(json.dumps(told))
