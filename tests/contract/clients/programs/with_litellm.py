"""LiteLLM as a client."""

import json
import os
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it would fetch one

import litellm

HELLO = [{"role": "user", "content": "say hello to me"}]
QUESTION = [{"role": "user", "content": "How is the weather in Paris?"}]
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}]


def chat(messages: list[Any], **more: Any) -> Any:
    given = {"model": f"openai/{os.environ['MODEL']}", "api_key": os.environ["API_KEY"]}
    return litellm.completion(api_base=os.environ["BASE_URL"], messages=messages, **{**given, **more})


def call_of(answer: Any) -> dict[str, object]:
    [call] = answer.choices[0].message.tool_calls
    return {"name": call.function.name, "arguments": json.loads(call.function.arguments)}


def refused(**changes: str) -> int:
    try:
        chat(HELLO, **changes)
    except litellm.exceptions.APIError as error:
        return int(error.status_code)
    except (litellm.exceptions.NotFoundError, litellm.exceptions.AuthenticationError) as error:
        return int(error.status_code)
    return 0


whole = chat(HELLO)
streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chat(HELLO, stream=True))
asked = chat(QUESTION, tools=TOOLS)
call = asked.choices[0].message.tool_calls[0]
result = f"22 degrees in {json.loads(call.function.arguments)['city']}"
message = {"role": "tool", "tool_call_id": call.id, "content": result}
answered = chat([*QUESTION, asked.choices[0].message, message], tools=TOOLS)
chunks = list(chat(QUESTION, tools=TOOLS, stream=True))
told = {
    "retried": whole.choices[0].message.content,
    "streamed": streamed,
    "call": call_of(asked),
    "answered": answered.choices[0].message.content,
    "streamed_call": call_of(litellm.stream_chunk_builder(chunks)),
    "tokens": whole.usage.total_tokens,
    "unknown_model": refused(model="openai/nothing"),
    "wrong_key": refused(api_key="ty-wrong"),
}
print(json.dumps(told))
