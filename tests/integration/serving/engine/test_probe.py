"""How an engine is asked for a sign of life, and what it is asked only where it generates."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

pytest.importorskip("vllm")

from tokenyard.core.errors import InvalidRequest
from tokenyard_deployments.serving.engine.vllm_engine import TokenyardEngine


class Client:
    """vLLM's client of an engine that answers at once; `asked` says how."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []

    async def generate(self, prompt: Any, _params: Any, _name: str) -> AsyncIterator[str]:
        self.asked.append(("generate", prompt["prompt_token_ids"]))
        yield "token"

    async def encode(self, prompt: Any, params: Any, _name: str) -> AsyncIterator[str]:
        self.asked.append((params.task, prompt["prompt_token_ids"]))
        yield "vector"


def engine(client: Client, *, generates: bool) -> TokenyardEngine:
    made = TokenyardEngine.__new__(TokenyardEngine)
    made._engine_client, made._generates = client, generates
    return made


@pytest.mark.parametrize(("generates", "asked"), [(True, "generate"), (False, "embed")])
async def test_an_engine_is_asked_for_what_it_makes(generates: bool, asked: str) -> None:
    client = Client()
    await engine(client, generates=generates).probe()
    assert client.asked == [(asked, [1])]


async def test_an_embedding_engine_continues_nothing() -> None:
    with pytest.raises(InvalidRequest, match="makes embeddings"):
        await engine(Client(), generates=False).continuation_logprobs(None, "a", "b")
