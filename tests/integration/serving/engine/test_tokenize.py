"""`/tokenize` and `/detokenize`: what the model's own tokenizer and template say, or a refusal; never a charge."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import ClientSession
from transformers import AutoTokenizer

from support.fakes.admission_requests import KEY as KEY_ID
from support.fakes.gateway_ports import BASE
from support.fakes.tiny_model import save_tiny_model
from support.gateway_stack import KEY, OTHER_KEY, GatewayStack
from tokenyard.core.principal import AllowedModels, KeyScope
from tokenyard.gateway.tokenize_routes import MAX_TEXT

CHAT = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello \u00e9!"}]


@pytest.fixture
def model(gateway: GatewayStack, tmp_path: Path) -> Path:
    """The folder of the gateway's chat model."""
    folder = save_tiny_model(tmp_path / "tiny")
    gateway.models.base = msgspec.structs.replace(BASE, path=str(folder))
    return folder


async def _post(gateway: GatewayStack, path: str, status: int = 200, **body: Any) -> dict[str, Any]:
    async with ClientSession() as session:
        response = await gateway.post(session, {"model": BASE.id, **body}, path)
        answer: dict[str, Any] = await response.json()
        assert response.status == status, answer
        return answer


@pytest.mark.parametrize("prefix", ["", "/v1"])
async def test_a_prompt_there_and_back(gateway: GatewayStack, model: Path, prefix: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(model))
    text = "Hello <|im_start|> \u00e9!"
    answer = await _post(gateway, f"{prefix}/tokenize", prompt=text, return_token_strs=True)
    ids = tokenizer(text)["input_ids"]
    strings = tokenizer.convert_ids_to_tokens(ids)
    assert answer == {"count": len(ids), "max_model_len": 2048, "tokens": ids, "token_strs": strings}
    assert await _post(gateway, f"{prefix}/detokenize", tokens=ids) == {"prompt": text}
    assert await gateway.events() == []


@pytest.mark.parametrize("generation", [True, False])
async def test_a_chat_is_what_the_template_makes_of_it(gateway: GatewayStack, model: Path, generation: bool) -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(model))
    wanted = tokenizer.apply_chat_template(CHAT, add_generation_prompt=generation, return_dict=False)
    answer = await _post(gateway, "/tokenize", messages=CHAT, add_generation_prompt=generation)
    assert answer["tokens"] == wanted
    assert answer["token_strs"] is None
    developer = [{**CHAT[0], "role": "developer"}, CHAT[1]]
    again = await _post(gateway, "/tokenize", messages=developer, add_generation_prompt=generation)
    assert again["tokens"] == wanted


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "a", "messages": CHAT}, "prompt"),
        ("/tokenize", {"prompt": "a" * (MAX_TEXT + 1)}, "prompt"),
        ("/tokenize", {"messages": [{"role": "user", "content": "a" * MAX_TEXT}, *CHAT]}, "messages"),
        ("/tokenize", {"messages": [{"role": "tool", "content": "a"}]}, "messages.0.role"),
        ("/tokenize", {"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages.0.content"),
        ("/tokenize", {"messages": CHAT, "tools": []}, "tools"),
        ("/tokenize", {"messages": CHAT, "chat_template": "x"}, "chat_template"),
        ("/tokenize", {"messages": CHAT, "continue_final_message": True}, "continue_final_message"),
        ("/detokenize", {"tokens": [1_000_000]}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens.0"),
    ],
)
async def test_what_cannot_be_told_exactly_is_refused_by_name(
    gateway: GatewayStack, model: Path, path: str, body: dict[str, Any], param: str
) -> None:
    error = (await _post(gateway, path, 400, **body))["error"]
    assert error["param"] == param


async def test_a_model_without_its_files_here_and_one_that_is_not_there(gateway: GatewayStack) -> None:
    assert (await _post(gateway, "/tokenize", 400, prompt="a"))["error"]["param"] == "model"
    assert (await _post(gateway, "/tokenize", 404, prompt="a", model="x"))["error"]["code"] == "model_not_found"


async def test_a_template_that_refuses_says_why(gateway: GatewayStack, model: Path) -> None:
    (model / "chat_template.jinja").write_text("{{ raise_exception('Users first') }}")
    error = (await _post(gateway, "/tokenize", 400, messages=CHAT))["error"]
    assert (error["param"], "Users first" in error["message"]) == ("messages", True)


async def test_a_key_is_needed(gateway: GatewayStack, model: Path) -> None:
    async with ClientSession() as session:
        for headers, status in (({}, 401), ({"authorization": f"Bearer {OTHER_KEY}"}, 200)):
            body = {"model": BASE.id, "prompt": "a"}
            response = await session.post(f"{gateway.url}/tokenize", json=body, headers=headers)
            assert response.status == status


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize(("path", "body"), [("/tokenize", {"prompt": "a"}), ("/detokenize", {"tokens": [1]})])
async def test_only_who_may_ask_the_model(gateway: GatewayStack, path: str, body: dict[str, Any]) -> None:
    caller = gateway.keys.tenants[KEY]
    allowed = (AllowedModels("key", KEY_ID, ("ft:*",)),)
    gateway.keys.tenants[KEY] = msgspec.structs.replace(caller, models=allowed)
    assert (await _post(gateway, path, 403, **body))["error"]["code"] == "model_not_found"
    gateway.keys.tenants[KEY] = msgspec.structs.replace(caller, scopes=frozenset({KeyScope.FILES}))
    assert (await _post(gateway, path, 403, **body))["error"]["code"] == "missing_scope"
    gateway.keys.tenants[KEY] = msgspec.structs.replace(caller, scopes=frozenset({KeyScope.INFERENCE}))
    await _post(gateway, path, **body)
