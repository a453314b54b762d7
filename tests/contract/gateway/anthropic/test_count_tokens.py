"""`count_tokens` and `models` of the real `anthropic` client."""

from pathlib import Path

import anthropic
import msgspec
import pytest
from anthropic import AsyncAnthropic

from support.anthropic_client import HI, WEATHER, error_of
from support.fakes.admission_requests import KEY as KEY_ID
from support.fakes.gateway_ports import BASE, EMBEDDER
from support.fakes.tokenizers import save_word_tokenizer
from support.gateway_stack import KEY, GatewayStack
from tokenyard.core.principal import AllowedModels, KeyScope

AROUND = BASE.template_tokens + BASE.template_tokens_per_message


@pytest.fixture
def _tokenizer(gateway: GatewayStack, tmp_path: Path) -> None:
    save_word_tokenizer(tmp_path)
    gateway.models.base = msgspec.structs.replace(BASE, path=str(tmp_path))


@pytest.mark.usefixtures("_tokenizer")
async def test_a_conversation_is_counted(gateway: GatewayStack, client: AsyncAnthropic) -> None:
    plain = await client.messages.count_tokens(model=BASE.id, messages=HI)
    assert plain.input_tokens == 4 + AROUND
    with_system = await client.messages.count_tokens(model=BASE.id, messages=HI, system="be brief")
    assert with_system.input_tokens == plain.input_tokens + 2 + BASE.template_tokens_per_message
    with_tools = await client.messages.count_tokens(model=BASE.id, messages=HI, tools=[WEATHER])
    assert with_tools.input_tokens > plain.input_tokens + 20
    assert gateway.server.log == []
    assert await gateway.events() == []


@pytest.mark.usefixtures("_tokenizer")
async def test_a_count_is_what_a_message_may_have(gateway: GatewayStack, client: AsyncAnthropic) -> None:
    """A message that has one token more than its context has room for is refused, and says the same number."""
    words = "alphabetical " * 500
    messages: list[anthropic.types.MessageParam] = [{"role": "user", "content": words}]
    count = (await client.messages.count_tokens(model=BASE.id, messages=messages)).input_tokens
    await client.messages.create(model=BASE.id, messages=messages, max_tokens=BASE.context_length - count)
    with pytest.raises(anthropic.BadRequestError, match=f"{count} in the messages"):
        await client.messages.create(model=BASE.id, messages=messages, max_tokens=BASE.context_length - count + 1)


async def test_refusals(client: AsyncAnthropic) -> None:
    with pytest.raises(anthropic.BadRequestError) as nowhere:
        await client.messages.count_tokens(model=BASE.id, messages=HI)
    assert "cannot be counted" in error_of(nowhere.value)["error"]["message"]
    with pytest.raises(anthropic.NotFoundError) as unknown:
        await client.messages.count_tokens(model="nothing", messages=HI)
    assert error_of(unknown.value)["error"]["type"] == "not_found_error"
    for name, value in (("max_tokens", 5), ("stream", True), ("surprise", 1)):
        body = {"model": BASE.id, "messages": HI, name: value}
        with pytest.raises(anthropic.BadRequestError) as refused:
            await client.post("/v1/messages/count_tokens", body=body, cast_to=object)
        assert f"'{name}'" in error_of(refused.value)["error"]["message"]
    with pytest.raises(anthropic.AuthenticationError) as stranger:
        await client.with_options(api_key="ty-unknown").messages.count_tokens(model=BASE.id, messages=HI)
    assert error_of(stranger.value)["error"]["type"] == "authentication_error"
    with pytest.raises(anthropic.APIStatusError) as large:
        await client.messages.count_tokens(model=BASE.id, messages=HI, system="x" * 1024 * 1024)
    assert error_of(large.value)["error"]["type"] == "request_too_large"


@pytest.mark.usefixtures("_tokenizer")
async def test_only_who_may_ask_the_model_may_count(gateway: GatewayStack, client: AsyncAnthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match="is not for /v1/messages/count_tokens"):
        await client.messages.count_tokens(model=EMBEDDER.id, messages=HI)
    caller = gateway.keys.tenants[KEY]
    allowed = (AllowedModels("key", KEY_ID, ("ft:*",)),)
    gateway.keys.tenants[KEY] = msgspec.structs.replace(caller, models=allowed)
    with pytest.raises(anthropic.PermissionDeniedError, match="does not have access to model"):
        await client.messages.count_tokens(model=BASE.id, messages=HI)
    gateway.keys.tenants[KEY] = msgspec.structs.replace(caller, scopes=frozenset({KeyScope.FILES}))
    with pytest.raises(anthropic.PermissionDeniedError, match="Missing scopes: inference"):
        await client.messages.count_tokens(model=BASE.id, messages=HI)
    gateway.keys.tenants[KEY] = msgspec.structs.replace(caller, scopes=frozenset({KeyScope.INFERENCE}))
    await client.messages.count_tokens(model=BASE.id, messages=HI)
