"""Whatever the conversation, training makes of it what vLLM shows, and learns its answers with their ends, no more."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("vllm")
from transformers import AutoTokenizer
from vllm.exceptions import VLLMValidationError

from integration.training.test_same_as_serving import Row, Served, call, server_of
from support.fakes.tiny_model import save_tiny_model
from support.training.template_families import FAMILIES, MARKS
from tokenyard.core.chat_rows import RowProblem, check_chat_row
from tokenyard_deployments.training.examples import IGNORED, Example, example_of

LENGTH = 100_000
TEXT = st.text(st.sampled_from("ab .,:\n\"'{}é😀"), min_size=1, max_size=20).filter(str.strip)
NAMES = st.sampled_from(["weather", "clock_now"])
VALUE = st.none() | st.booleans() | st.integers(-999, 999) | TEXT | st.lists(TEXT, max_size=2)
ARGUMENTS = st.dictionaries(st.sampled_from(["place", "at", "unit"]), VALUE, max_size=3)
TOOLS = [
    {
        "type": "function",
        "function": {"name": name, "description": f"Tells of {name}", "parameters": {"type": "object"}},
    }
    for name in ("weather", "clock_now")
]


@st.composite
def turns(draw: st.DrawFn, *, tools: bool) -> list[Row]:
    """Draw a question and its answer, in between of which there may be calls and their results."""
    found: list[Row] = [{"role": "user", "content": draw(TEXT)}]
    if tools and draw(st.booleans()):
        identities = ["abcdefghi", "jklmnopqr"][: draw(st.integers(1, 2))]
        calls = [call(draw(NAMES), json.dumps(draw(ARGUMENTS)), identity) for identity in identities]
        found.append({"role": "assistant", "content": draw(st.sampled_from([None, ""])), "tool_calls": calls})
        found += [{"role": "tool", "content": draw(TEXT), "tool_call_id": identity} for identity in identities]
    answer: Row = {"role": "assistant", "content": draw(TEXT)}
    if draw(st.integers(0, 3)) == 0:
        answer["weight"] = 0
    return [*found, answer]


@st.composite
def conversations(draw: st.DrawFn) -> Row:
    tools = draw(st.booleans())
    messages: list[Row] = []
    if draw(st.booleans()):
        messages.append({"role": draw(st.sampled_from(["system", "developer"])), "content": draw(TEXT)})
    for _ in range(draw(st.integers(1, 3))):
        messages += draw(turns(tools=tools))
    if draw(st.integers(0, 5)) == 0:  # out of turn, which some templates refuse
        messages.insert(-1, {"role": "user", "content": draw(TEXT)})
    messages[-1].pop("weight", None)
    return {"messages": messages, "tools": TOOLS} if tools else {"messages": messages}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_tiny_model(tmp_path_factory.mktemp("base"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>", "additional_special_tokens": MARKS})
    tokenizer.save_pretrained(folder)
    config = folder / "config.json"
    larger = {"max_position_embeddings": LENGTH, "vocab_size": len(tokenizer)}
    config.write_text(json.dumps(json.loads(config.read_text()) | larger))
    return folder


@pytest.fixture(scope="module")
def tokenizer(model: Path) -> Any:
    return AutoTokenizer.from_pretrained(model)


@pytest.fixture(scope="module")
def served(model: Path) -> Served:
    return server_of(model)


@pytest.mark.parametrize("name", FAMILIES)
def test_tokens_and_mask_are_those_of_serving(tokenizer: Any, served: Served, name: str) -> None:
    seen = set()

    @settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(conversations())
    def check(row: Row) -> None:
        seen.add(asyncio.run(compared(row, tokenizer, served, name)))

    check()
    assert "same" in seen
    assert FAMILIES[name].shows_tools or "does not show tools" in seen
    assert name not in ("gemma", "mistral") or "cannot show" in seen
    assert name not in ("qwen3", "mistral") or "changes earlier" in seen


async def compared(row: Row, tokenizer: Any, served: Served, name: str) -> str:
    """Compare what training makes of a row with what serving makes of it; say how that ended."""
    family = FAMILIES[name]
    tokenizer.chat_template = family.template
    try:
        example = example_of(check_chat_row(row), tokenizer, LENGTH)
    except RowProblem as problem:
        if "cannot show" in str(problem):
            with pytest.raises(VLLMValidationError):
                await served(family.template, asked(row), len(row["messages"]), False)
        parts = ("cannot show", "does not show tools", "changes earlier")
        return next(part for part in parts if part in str(problem))
    assert example.input_ids == await served(family.template, asked(row), len(row["messages"]), False)
    assert learnt(example) == await answers(row, tokenizer, served, name)
    return "same"


def asked(row: Row) -> Row:
    """Return the row as a client would send it: without what is for training only."""
    plain = [{name: value for name, value in message.items() if name != "weight"} for message in row["messages"]]
    return {**row, "messages": plain}


def learnt(example: Example) -> list[int]:
    assert all(label in (token, IGNORED) for token, label in zip(example.input_ids, example.labels, strict=True))
    return [place for place, label in enumerate(example.labels) if label != IGNORED]


async def answers(row: Row, tokenizer: Any, served: Served, name: str) -> list[int]:
    """Return the places of all tokens that a model makes itself as it is served: each answer up to the end mark."""
    family = FAMILIES[name]
    [end] = tokenizer.encode(family.end, add_special_tokens=False)
    places: list[int] = []
    for index, message in enumerate(row["messages"]):
        if message["role"] == "assistant" and message.get("weight", 1):
            begin = len(await served(family.template, asked(row), index, True))
            upto = await served(family.template, asked(row), index + 1, False)
            places += range(begin, upto.index(end, begin) + 1)
    return places
