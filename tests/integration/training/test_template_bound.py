"""No chat that the gateway lets in, whatever its tools and calls, becomes more tokens than were held for it."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

pytest.importorskip("vllm")
from transformers import AutoTokenizer
from vllm.exceptions import VLLMValidationError

from integration.training.test_same_as_serving import MODEL, ROOT, Served, server_of
from tokenyard.catalog.base_models.base_models import BaseModels
from tokenyard.core.models import BaseModel, ModelSpec
from tokenyard.gateway.endpoints.table import CHAT
from tokenyard_deployments.base_models.fetch import pull, shipped_specs, source_of

Json = dict[str, Any]

# Digits, quotes and the like are tokens of their own; the marks of the template are tried, too.
TEXT = st.text(st.sampled_from('a1 \n"\\{},:[]é€😀\t'), max_size=30) | st.sampled_from(
    ["<|im_end|>", "<tool_call>", "</tool_response>", "x" * 40, "9" * 40]
)
NAME = st.from_regex(r"[a-zA-Z0-9_-]{1,12}", fullmatch=True)
NUMBER = st.integers(-(10**20), 10**20) | st.sampled_from([1e15, -1e-7, 1e308, 0.1, 10**15])
VALUE = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)
# Read and printed anew, these become longer than they were written.
LONG = st.sampled_from([[1e15] * 80, [1] * 300, [[]] * 100, [{"a": -1e-7}] * 40])
OBJECT = st.dictionaries(TEXT, VALUE | LONG, max_size=4)


def written(value: object, compact: bool, exponents: bool) -> str:
    text = json.dumps(value, separators=(",", ":") if compact else None, ensure_ascii=compact)
    return text.replace("1000000000000000.0", "1e15") if exponents else text


CALL = st.builds(
    lambda name, arguments: {"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}},
    NAME,
    st.builds(written, OBJECT, st.booleans(), st.booleans()) | TEXT,
)
TOOL = st.builds(
    lambda name, description, parameters: {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters},
    },
    NAME,
    TEXT | st.none(),
    OBJECT,
)
PLAIN = st.builds(
    lambda role, text: {"role": role, "content": text}, st.sampled_from(["user", "system", "assistant"]), TEXT
)
MESSAGE = st.one_of(
    PLAIN,
    st.builds(
        lambda text, calls: {"role": "assistant", "content": text, "tool_calls": calls},
        TEXT | st.none(),
        st.lists(CALL, min_size=1, max_size=4),
    ),
    st.builds(lambda text: {"role": "tool", "content": text, "tool_call_id": "1"}, TEXT),
)
CHATS = st.fixed_dictionaries(
    {"messages": st.lists(MESSAGE, min_size=1, max_size=6)}, optional={"tools": st.lists(TOOL, min_size=1, max_size=4)}
)


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    _, spec = source_of(MODEL, shipped_specs())
    assert spec is not None
    return spec


@pytest.fixture(scope="module")
def folder(spec: ModelSpec) -> Path:
    folder = Path(os.environ.get("TOKENYARD_TEST_MODEL") or ROOT / "build" / "models" / MODEL)
    pull(spec.source, folder, lambda _step: None, template=spec.chat_template)
    return folder


@pytest.fixture(scope="module")
def base(spec: ModelSpec, folder: Path) -> BaseModel:
    base = BaseModels([spec], folder.parent).get(MODEL)
    assert base is not None
    return base


@pytest.fixture(scope="module")
def served(folder: Path) -> Served:
    return server_of(folder)


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(chat=CHATS)
def test_a_chat_is_no_longer_than_its_bound(base: BaseModel, served: Served, chat: Json) -> None:
    body = CHAT.parse(json.dumps({"model": MODEL, **chat}).encode())
    try:
        tokens = asyncio.run(served(None, chat, len(chat["messages"]), True))
    except VLLMValidationError:  # over the context
        reject()
    assert len(tokens) <= body.prompts(base)[0].bound


OWN = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""The template that the model came with."""


@given(st.lists(PLAIN, min_size=1, max_size=6), st.booleans())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_without_tools_a_chat_is_shown_as_the_models_own_template_does(
    tokenizer: Any, messages: list[Json], opened: bool
) -> None:
    ours, own = (
        tokenizer.apply_chat_template(messages, chat_template=one, tokenize=False, add_generation_prompt=opened)
        for one in (None, OWN)
    )
    assert ours == own
