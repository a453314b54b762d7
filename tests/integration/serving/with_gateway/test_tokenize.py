"""The gateway's own `/tokenize` says what a real replica's does."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm")

from support.replica_caller import ReplicaCaller
from tokenyard.gateway.counting.model_tokenizer import ModelTokenizer

TEXT = " Hello \u00e9\u6d77 <|im_end|>\n\n world"
CHATS = [
    [("user", TEXT)],
    [("system", "Be kind."), ("user", "a"), ("assistant", "b"), ("user", TEXT)],
]
ENDPOINT = "/tokenize"


async def _replica_says(caller: ReplicaCaller, **body: Any) -> list[int]:
    status, answer = await caller.post(ENDPOINT, {"model": caller.replica.model, **body})
    assert status == 200, answer
    tokens: list[int] = answer["tokens"]
    return tokens


async def test_prompts(caller: ReplicaCaller, base_model: Path) -> None:
    tokenizer = ModelTokenizer(base_model / "tokenizer.json")
    for special in (True, False):
        wanted = await _replica_says(caller, prompt=TEXT, add_special_tokens=special)
        assert tokenizer.encode(TEXT, add_special_tokens=special) == wanted


@pytest.mark.parametrize("generation", [True, False])
@pytest.mark.parametrize("chat", CHATS, ids=["one", "four"])
async def test_chats(caller: ReplicaCaller, base_model: Path, chat: list[tuple[str, str]], generation: bool) -> None:
    tokenizer = ModelTokenizer(base_model / "tokenizer.json")
    messages = [{"role": role, "content": content} for role, content in chat]
    wanted = await _replica_says(caller, messages=messages, add_generation_prompt=generation)
    text = tokenizer.template.render(chat, add_generation_prompt=generation)
    assert tokenizer.encode(text, add_special_tokens=False) == wanted
