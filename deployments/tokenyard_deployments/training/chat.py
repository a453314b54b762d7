"""A row's messages and tools as its chat template gets them in serving, so that training shows what serving will show.

Sources: `tidy` of the gateway's messages; vLLM's `renderers/chat_utils.py` and `renderers/hf.py`. A test compares the
tokens of many templates with those of vLLM itself.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from jinja2 import nodes
from transformers.utils.chat_template_utils import _compile_jinja_template

from tokenyard.core.chat_rows import RowMessage, RowTool, RowToolCall

Json = dict[str, Any]


def served_messages(messages: Sequence[RowMessage], template: str) -> list[Json]:
    """Return the messages in the form that serving chooses for `template`."""
    parts = takes_parts(template)
    return [_message(message, parts=parts) for message in messages]


def served_tools(tools: Sequence[RowTool] | None) -> list[Json] | None:
    return [_tool(tool) for tool in tools] if tools else None


@lru_cache(maxsize=8)
def takes_parts(template: str) -> bool:
    """Tell whether serving gives this template each text as a list of parts: it does where the template loops over
    `content`, also where it would take plain text as well.
    """
    tree = _compile_jinja_template(template).environment.parse(template)
    return any(_is_content(loop.iter) for loop in tree.find_all(nodes.For))


def _is_content(node: nodes.Node | None) -> bool:
    match node:
        case nodes.Filter() | nodes.Test() | nodes.Getitem(arg=nodes.Slice()):
            return _is_content(node.node)
        case nodes.Getitem(arg=nodes.Const(value="content")) | nodes.Getattr(attr="content"):
            return True
        case nodes.Name(name="content"):
            return True
    return False


def _message(message: RowMessage, *, parts: bool) -> Json:
    role = "system" if message.role == "developer" else message.role
    content: object = message.content or ""
    if parts and role != "tool":
        content = [] if message.content is None else [{"type": "text", "text": message.content}]
    found: Json = {"role": role, "content": content}
    if message.tool_calls:
        found["tool_calls"] = [_call(call) for call in message.tool_calls]
    if message.tool_call_id is not None:
        found["tool_call_id"] = message.tool_call_id
    if message.name is not None:
        found["name"] = message.name
    return found


# The order of fields is that of serving: some templates print all of them.
def _call(call: RowToolCall) -> Json:
    arguments = json.loads(call.function.arguments or "{}")
    return {"id": call.id, "function": {"arguments": arguments, "name": call.function.name}, "type": call.type}


def _tool(tool: RowTool) -> Json:
    taken = tool.function
    function: Json = {"name": taken.name, "description": taken.description, "parameters": taken.parameters}
    if taken.strict is not None:
        function["strict"] = taken.strict
    return {"type": tool.type, "function": function}
