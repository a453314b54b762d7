"""Which limit of a body is whose: what vLLM refuses the gateway refuses first, by name; what it sends vLLM takes."""

import json
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from pydantic import ValidationError
from vllm.config import ModelConfig
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.exceptions import VLLMValidationError
from vllm.renderers.base import BaseRenderer

from support.fakes.gateway_ports import BASE
from tokenyard.core.errors import InvalidRequest
from tokenyard.core.models import SamplingDefaults
from tokenyard.gateway.endpoints.body import MAX_BIASES, MAX_LOGPROBS, MAX_STOP_CHARS
from tokenyard.gateway.endpoints.table import CHAT, COMPLETIONS, Endpoint

VOCABULARY = 2000
MODEL = msgspec.structs.replace(BASE, vocabulary_size=VOCABULARY, context_length=10**6)
MAX_INT64 = 2**63 - 1
HELLO = [{"role": "user", "content": "x"}]
TOOL = {"type": "function", "function": {"name": "f"}}
Extra = dict[str, Any]

# Each row is refused by the gateway with this `param`; vLLM refuses it, too.
ENGINES: list[tuple[Endpoint, Extra, str]] = [
    *((one, {"frequency_penalty": -2.1}, "frequency_penalty") for one in (CHAT, COMPLETIONS)),
    (CHAT, {"presence_penalty": 2.1}, "presence_penalty"),
    (CHAT, {"repetition_penalty": 0}, "repetition_penalty"),
    (CHAT, {"temperature": -0.1}, "temperature"),
    (CHAT, {"temperature": 2.1}, "temperature"),
    (CHAT, {"top_p": 1.1}, "top_p"),
    (CHAT, {"top_k": -2}, "top_k"),
    (CHAT, {"min_p": 1.1}, "min_p"),
    (CHAT, {"max_tokens": 0}, "max_tokens"),
    (CHAT, {"n": 0}, "n"),
    (CHAT, {"n": 2, "temperature": 0}, "n"),
    (COMPLETIONS, {"n": 2, "temperature": 0}, "n"),
    (CHAT, {"seed": MAX_INT64 + 1}, "seed"),
    (CHAT, {"seed": -MAX_INT64 - 2}, "seed"),
    (CHAT, {"stop": ["a"] * 5}, "stop"),
    (CHAT, {"stop": ""}, "stop"),
    (CHAT, {"stop": ["a", ""]}, "stop[1]"),
    (CHAT, {"logit_bias": {"x": 1}}, "logit_bias"),
    (CHAT, {"logit_bias": {str(VOCABULARY): 1}}, "logit_bias"),
    (CHAT, {"logit_bias": {"999999999": 1}}, "logit_bias"),
    (COMPLETIONS, {"logit_bias": {"5": 1, str(VOCABULARY): 1}}, "logit_bias"),
    (CHAT, {"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    (CHAT, {"top_logprobs": 1}, "top_logprobs"),
    (CHAT, {"tools": []}, "tools"),
    (CHAT, {"tool_choice": "auto"}, "tool_choice"),
    (CHAT, {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice"),
    (COMPLETIONS, {"logprobs": -2}, "logprobs"),
    (COMPLETIONS, {"prompt": ""}, "prompt"),
    (COMPLETIONS, {"prompt": [-1]}, "prompt"),
    (COMPLETIONS, {"prompt": [VOCABULARY]}, "prompt"),
    (COMPLETIONS, {"prompt": [[1, 2], [3, VOCABULARY]]}, "prompt"),
    (COMPLETIONS, {"prompt": ["a"] * 1025}, "prompt"),
]
# vLLM takes these. Most are OpenAI's limits; the others keep a request from weighing on everybody else's.
OURS: list[tuple[Endpoint, Extra, str]] = [
    (CHAT, {"logit_bias": {"5": 100.1}}, "logit_bias"),
    (CHAT, {"logit_bias": {str(at): 1 for at in range(MAX_BIASES + 1)}}, "logit_bias"),  # ends vLLM's GPU worker
    (CHAT, {"logit_bias": {"0" * 11: 1}}, "logit_bias"),
    (CHAT, {"stop": "x" * (MAX_STOP_CHARS + 1)}, "stop"),
    (CHAT, {"n": 129}, "n"),
    (CHAT, {"n": 2, "seed": MAX_INT64}, "seed"),  # the second choice has the next seed: ends vLLM's GPU worker
    (CHAT, {"repetition_penalty": 10.1}, "repetition_penalty"),
    (CHAT, {"top_k": 1_000_001}, "top_k"),
    (CHAT, {"logprobs": True, "top_logprobs": 20, "max_tokens": 100_000}, "logprobs"),
    (CHAT, {"n": 128, "logprobs": True, "max_tokens": 10_000}, "logprobs"),
    (COMPLETIONS, {"logprobs": 6}, "logprobs"),
    (COMPLETIONS, {"logprobs": 5, "max_tokens": 100_000}, "logprobs"),
    (COMPLETIONS, {"logprobs": 5, "echo": True, "stream": True, "prompt": [1] * 100_000}, "logprobs"),
    (COMPLETIONS, {"prompt": ["a", ""]}, "prompt"),
    (COMPLETIONS, {"prompt": ["a"] * 65, "n": 2, "temperature": 1}, "n"),
]
# The gateway takes each row; so does vLLM what it is sent.
TAKEN: list[tuple[Endpoint, Extra]] = [
    *((one, {"frequency_penalty": -2, "presence_penalty": 2}) for one in (CHAT, COMPLETIONS)),
    *((CHAT, {"temperature": value}) for value in (0, 1e-9, 2)),
    *((CHAT, {"top_p": value}) for value in (0, 1e-12, 1)),
    *((CHAT, {"top_k": value}) for value in (-1, 0, 1_000_000)),
    *((CHAT, {"min_p": value}) for value in (0, 1)),
    *((CHAT, {"repetition_penalty": value}) for value in (0.01, 10)),
    *((CHAT, {"seed": value}) for value in (-MAX_INT64 - 1, -1, MAX_INT64)),
    (CHAT, {"n": 128, "seed": MAX_INT64 - 127}),
    (CHAT, {"n": 2, "temperature": 1e-9}),
    (CHAT, {"stop": ["a", "é", "\n", "x" * MAX_STOP_CHARS]}),
    (CHAT, {"stop": []}),
    (CHAT, {"logit_bias": {"0": -100, str(VOCABULARY - 1): 100}}),
    (CHAT, {"logit_bias": {str(at): 1 for at in range(MAX_BIASES)}}),
    (CHAT, {"logit_bias": {}}),
    (CHAT, {"logprobs": True, "top_logprobs": 20}),
    (CHAT, {"logprobs": True}),
    (CHAT, {"top_logprobs": 0}),
    (CHAT, {"logprobs": True, "top_logprobs": 20, "max_tokens": 100_000, "stream": True}),
    (CHAT, {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}}),
    (COMPLETIONS, {"prompt": [0, VOCABULARY - 1]}),
    (COMPLETIONS, {"prompt": ["a"] * 64, "n": 2, "temperature": 1}),
    (COMPLETIONS, {"logprobs": 5, "echo": True, "max_tokens": 0}),
    (COMPLETIONS, {"logprobs": 0}),
]


def _body(endpoint: Endpoint, extra: Extra) -> Extra:
    return {"model": "m", endpoint.input: HELLO if endpoint is CHAT else "x", **extra}


def _sent(endpoint: Endpoint, extra: Extra) -> Extra:
    """Return what the gateway would send to a replica."""
    body = endpoint.parse(json.dumps(_body(endpoint, extra)).encode())
    body.check_model(MODEL)
    return {**body.sent(MODEL, body.wanted_tokens or 16), "model": "m"}


def _engine_checks(endpoint: Endpoint, body: Mapping[str, Any]) -> None:
    config = SimpleNamespace(max_logprobs=20, get_vocab_size=lambda: VOCABULARY, is_diffusion=False)
    request = (ChatCompletionRequest if endpoint is CHAT else CompletionRequest)(**body)
    params = request.to_sampling_params(16 if body.get("max_tokens") is None else body["max_tokens"], {})
    params.verify(cast(ModelConfig, config), None, None, None)
    prompt = body.get("prompt")
    if isinstance(prompt, list) and not isinstance(prompt[0], str):
        renderer = SimpleNamespace(tokenizer=SimpleNamespace(max_token_id=VOCABULARY - 1), model_config=config)
        for ids in prompt if isinstance(prompt[0], list) else [prompt]:
            BaseRenderer.validate_token_ids(cast("BaseRenderer[Any]", renderer), ids)


def _name(value: object) -> str:
    return value.input if isinstance(value, Endpoint) else "" if isinstance(value, str) else str(value)[:50]


@pytest.mark.parametrize(("endpoint", "extra", "param"), ENGINES, ids=_name)
def test_what_vllm_refuses_is_refused_first(endpoint: Endpoint, extra: Extra, param: str) -> None:
    with pytest.raises((VLLMValidationError, ValidationError)):
        _engine_checks(endpoint, _body(endpoint, extra))
    with pytest.raises(InvalidRequest) as refused:
        _sent(endpoint, extra)
    assert refused.value.param == param


@pytest.mark.parametrize(("endpoint", "extra", "param"), OURS, ids=_name)
def test_what_only_the_gateway_refuses(endpoint: Endpoint, extra: Extra, param: str) -> None:
    _engine_checks(endpoint, _body(endpoint, extra))
    with pytest.raises(InvalidRequest) as refused:
        _sent(endpoint, extra)
    assert refused.value.param == param


@pytest.mark.parametrize(("endpoint", "extra"), TAKEN, ids=_name)
def test_what_the_gateway_sends_vllm_takes(endpoint: Endpoint, extra: Extra) -> None:
    _engine_checks(endpoint, _sent(endpoint, extra))


def test_the_models_own_temperature_counts_where_the_client_gives_none() -> None:
    greedy = msgspec.structs.replace(MODEL, sampling=SamplingDefaults(temperature=0))
    body = CHAT.parse(json.dumps(_body(CHAT, {"n": 2})).encode())
    body.check_model(MODEL)
    with pytest.raises(InvalidRequest, match="'n'"):
        body.check_model(greedy)


def test_without_the_models_folder_the_engine_alone_knows_the_vocabulary() -> None:
    unknown = msgspec.structs.replace(MODEL, vocabulary_size=None)
    CHAT.parse(json.dumps(_body(CHAT, {"logit_bias": {"999999999": 1}})).encode()).check_model(unknown)
    COMPLETIONS.parse(json.dumps(_body(COMPLETIONS, {"prompt": [2**30]})).encode()).check_model(unknown)


def test_how_many_log_probabilities_are_held_at_once() -> None:
    wanted = MAX_LOGPROBS // 21
    _sent(CHAT, {"logprobs": True, "top_logprobs": 20, "max_tokens": wanted})
    with pytest.raises(InvalidRequest, match="stream"):
        _sent(CHAT, {"logprobs": True, "top_logprobs": 20, "max_tokens": wanted + 1})
