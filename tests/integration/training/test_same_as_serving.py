"""What training makes of a chat is what serving makes of it, token by token: the gateway, then vLLM's own rendering."""

import json
import os
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("vllm")
pytest.importorskip("trl")
from transformers import AutoTokenizer
from vllm.config import ModelConfig, VllmConfig
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.exceptions import VLLMValidationError
from vllm.renderers import renderer_from_config
from vllm.renderers.online_renderer import OnlineRenderer

from support.fakes.gateway_ports import BASE
from support.fakes.tiny_model import save_tiny_model
from support.finetune.encoding import encode
from tokenyard.core.chat_rows import ChatRow
from tokenyard.gateway.endpoints.chat import ChatBody
from tokenyard_deployments.base_models.fetch import pull, shipped_specs, source_of
from tokenyard_deployments.training.examples import IGNORED, Example
from tokenyard_deployments.training.failures import TrainingFailed

ROOT = Path(__file__).parents[3]
MODEL = "smollm2-135m-instruct"
Row = dict[str, Any]
Served = Callable[[str | None, Row, int, bool], Any]

WEATHER = {
    "parameters": {"type": "object", "properties": {"place": {"type": "string", "description": "a town"}}},
    "name": "weather",
    "description": "Tells how warm it is",
}
CLOCK = {"name": "clock", "strict": True}
TOOLS = [{"type": "function", "function": WEATHER, "note": "dropped"}, {"type": "function", "function": CLOCK}]


def call(name: str, arguments: str, identity: str) -> Row:
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


TALK: Row = {
    "messages": [
        {"role": "developer", "content": "Be brief. "},
        {"role": "user", "content": " Hi\n", "name": "ann"},
        {"role": "assistant", "content": "Héllo "},
        {"role": "user", "content": "And more?"},
        {"role": "assistant", "content": "No.", "name": "bot"},
    ]
}
CALLS: Row = {
    "messages": [
        {"role": "user", "content": "How warm is it?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [call("weather", '{"place": "Ürgüp", "at": {"lat": 38.60, "high": null}}', "abcdefghi")],
        },
        {"role": "tool", "content": "22", "tool_call_id": "abcdefghi"},
        {"role": "assistant", "content": "It is 22."},
        {"role": "user", "content": "And how late?"},
        {"role": "assistant", "content": None, "tool_calls": [call("clock", "", "jklmnopqr")]},
    ],
    "tools": TOOLS,
}
ROWS = {"talk": TALK, "calls": CALLS}

_TURN = "{{ '<|im_start|>' + message.role + '\n' }}"
_CLOSED = "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
HAND_MADE = {
    # Also the order of fields, and which of them are there.
    "everything": "{{ tools | tojson }}{% for message in messages %}{{ message | tojson }}\n{% endfor %}",
    "arguments": "{{ tools }}{% for message in messages %}" + _TURN + "{{ message.content }}"
    "{% for call in message.tool_calls %}{{ call.function.name }}{{ call.id }}"
    "{% for name, value in call.function.arguments.items() %}{{ name }}={{ value | tojson }};{% endfor %}"
    "{% endfor %}" + _CLOSED,
    "parts": "{{ tools | tojson(indent=4) }}{% for message in messages %}" + _TURN + "{% if message.role == 'tool' %}"
    "{{ message.content }}{% else %}{% for part in message['content'] %}{{ part.type }}:{{ part.text | trim }}"
    "{% endfor %}{% endif %}{% for call in message.tool_calls %}{{ call | tojson }}{% endfor %}" + _CLOSED,
}
TEMPLATES = HAND_MADE | {
    file.name.removesuffix(".jinja"): file.read_text()
    for file in sorted(Path(str(files("trl") / "chat_templates")).glob("*.jinja"))
    if not file.name.endswith("_training.jinja")
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_tiny_model(tmp_path_factory.mktemp("base"))
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"max_position_embeddings": 100_000}))
    return folder


def server_of(model: Path) -> Served:
    """Return what serves a row's first messages with a template; `opened` adds what an answer follows."""
    config = ModelConfig(model=str(model), dtype="float32")
    renderer = renderer_from_config(VllmConfig(model_config=config))

    async def served(template: str | None, row: Row, count: int, opened: bool) -> list[int]:
        vllm = OnlineRenderer(
            config,
            renderer,
            request_logger=None,
            chat_template=template,
            chat_template_content_format="auto",
            enable_auto_tools=True,
            tool_parser="hermes",
        )
        body = msgspec.convert({"model": "tiny", **row, "messages": row["messages"][:count]}, ChatBody)
        body.check()
        request = ChatCompletionRequest.model_validate({**body.sent(BASE, 1), "add_generation_prompt": opened})
        rendered = await vllm.render_chat(request)
        assert isinstance(rendered, tuple), rendered
        ids: list[int] = rendered[1][0]["prompt_token_ids"]
        return ids

    return served


@pytest.fixture(scope="module")
def tokenizer(model: Path) -> Any:
    return AutoTokenizer.from_pretrained(model)


@pytest.fixture(scope="module")
def served(model: Path) -> Served:
    return server_of(model)


def last_answer_learnt(row: Row) -> ChatRow:
    """Return the row with nothing else to learn, as templates may change what went before."""
    answers = [{**message, "weight": 0} if message["role"] == "assistant" else message for message in row["messages"]]
    return msgspec.convert({**row, "messages": [*answers[:-1], row["messages"][-1]]}, ChatRow)


async def check_same(example: Example, row: Row, template: str | None, served: Served) -> None:
    count = len(row["messages"])
    prompt = await served(template, row, count - 1, True)
    assert example.input_ids == await served(template, row, count, False)
    assert example.input_ids[: len(prompt)] == prompt
    assert [label == IGNORED for label in example.labels].index(False) == len(prompt)


def learnt(row: Row, tokenizer: Any) -> Example | str:
    """Return what training makes of the row, or why it refuses it."""
    try:
        [example] = encode([last_answer_learnt(row)], tokenizer, 100_000)
    except TrainingFailed as refused:
        return refused.error.message
    return example


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("kind", ROWS)
async def test_the_tokens_are_the_same(tokenizer: Any, served: Served, kind: str, name: str) -> None:
    row, template = ROWS[kind], TEMPLATES[name]
    tokenizer.chat_template = template
    example = learnt(row, tokenizer)
    if isinstance(example, Example):
        await check_same(example, row, template, served)
        return
    assert name not in HAND_MADE
    if "cannot show" in example:
        with pytest.raises(VLLMValidationError):
            await served(template, row, len(row["messages"]), False)
    else:  # what serving would show can be rendered, but not learnt
        assert "does not show tools" in example or name.startswith(("deepseek", "nemotron"))


@pytest.mark.parametrize("kind", ROWS)
async def test_the_shipped_model_learns_what_it_is_shown(kind: str) -> None:
    folder = Path(os.environ.get("TOKENYARD_TEST_MODEL") or ROOT / "build" / "models" / MODEL)
    source, spec = source_of(MODEL, shipped_specs())
    assert spec is not None
    pull(source, folder, lambda _step: None, template=spec.chat_template)
    [example] = encode([last_answer_learnt(ROWS[kind])], AutoTokenizer.from_pretrained(folder), 8192)
    await check_same(example, ROWS[kind], None, server_of(folder))
