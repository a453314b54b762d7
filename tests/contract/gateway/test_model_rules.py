"""Allowed models, limits of models and scopes, as the real `openai` client meets them on the paid path."""

from collections.abc import AsyncIterator

import msgspec
import openai
import pytest
from openai import AsyncOpenAI

from support.fakes.admission_requests import KEY as KEY_ID
from support.fakes.admission_requests import ORGANIZATION, PROJECT, principal
from support.fakes.gateway_ports import BASE
from support.gateway_stack import HELLO, KEY, GatewayStack
from tokenyard.core.adapters import AdapterRef
from tokenyard.core.ids import AdapterId
from tokenyard.core.principal import AllowedModels, KeyScope, Limits, ModelLimits, Principal, ScopedLimits
from tokenyard.limits.revisions import RedisRevisions

TUNED = "ft:test-model:test:x:1"


@pytest.fixture
async def client(gateway: GatewayStack) -> AsyncIterator[AsyncOpenAI]:
    gateway.models.fine_tuned[ORGANIZATION, TUNED] = AdapterRef(AdapterId("1"), TUNED, "p", "d")
    async with AsyncOpenAI(api_key=KEY, base_url=f"{gateway.url}/v1", max_retries=0) as client:
        yield client


def change(gateway: GatewayStack, **changes: object) -> Principal:
    caller = msgspec.structs.replace(gateway.keys.tenants[KEY], **changes)
    gateway.keys.tenants[KEY] = caller
    return caller


async def ask(client: AsyncOpenAI, model: str = BASE.id) -> None:
    await client.chat.completions.create(model=model, messages=HELLO, max_tokens=4)


@pytest.mark.parametrize(
    ("scope", "identity", "whose"),
    [
        ("key", KEY_ID, "This API key"),
        ("project", PROJECT, f"Project `{PROJECT}`"),
        ("organization", ORGANIZATION, f"Organization `{ORGANIZATION}`"),
    ],
)
async def test_a_model_that_is_not_allowed(
    gateway: GatewayStack, client: AsyncOpenAI, scope: str, identity: str, whose: str
) -> None:
    change(gateway, models=(AllowedModels(scope, identity, ("ft:*",)),))
    with pytest.raises(openai.PermissionDeniedError) as refused:
        await ask(client)
    assert (refused.value.code, refused.value.param) == ("model_not_found", "model")
    assert f"{whose} does not have access to model `{BASE.id}`." in refused.value.message
    with pytest.raises(openai.NotFoundError):
        await ask(client, "nothing")
    await ask(client, TUNED)
    await gateway.settled(1)
    assert len(gateway.server.log) == 1


async def test_every_scope_with_a_list_must_allow_the_model(gateway: GatewayStack, client: AsyncOpenAI) -> None:
    lists = (AllowedModels("key", KEY_ID, (BASE.id, TUNED)), AllowedModels("project", PROJECT, (BASE.id,)))
    change(gateway, models=lists)
    await ask(client)
    with pytest.raises(openai.PermissionDeniedError, match="Project"):
        await ask(client, TUNED)
    change(gateway, models=(AllowedModels("key", KEY_ID, ()),))
    with pytest.raises(openai.PermissionDeniedError):
        await ask(client)


async def test_a_limit_of_a_model_is_named_and_holds_for_no_other(gateway: GatewayStack, client: AsyncOpenAI) -> None:
    place = f"{PROJECT}/{BASE.id}"
    limit = ModelLimits(BASE.id, ScopedLimits("model", place, Limits(requests_per_minute=1)))
    change(gateway, model_limits=(limit,))
    raw = await client.chat.completions.with_raw_response.create(model=BASE.id, messages=HELLO, max_tokens=4)
    assert raw.headers["x-ratelimit-limit-requests"] == "1"
    with pytest.raises(openai.RateLimitError) as refused:
        await ask(client)
    assert f"for model {place} on requests per min (RPM): Limit 1, Used 1, Requested 1." in refused.value.message
    for _ in range(2):
        await ask(client, TUNED)
    await gateway.settled(3)
    await gateway.nothing_is_held()


async def test_the_slots_and_tokens_of_a_model_are_given_back(gateway: GatewayStack, client: AsyncOpenAI) -> None:
    limits = Limits(concurrency=1, tokens_per_minute=500)
    patterns = (BASE.id, "*")
    stated = tuple(ModelLimits(one, ScopedLimits("model", f"{KEY_ID}/{one}", limits)) for one in patterns)
    change(gateway, model_limits=stated)
    for number in range(3):
        await ask(client)
        await gateway.settled(number + 1)


async def test_a_key_that_is_not_for_inference(gateway: GatewayStack, client: AsyncOpenAI) -> None:
    change(gateway, scopes=frozenset({KeyScope.FILES, KeyScope.BILLING}))
    with pytest.raises(openai.PermissionDeniedError) as refused:
        await ask(client)
    assert refused.value.code == "missing_scope"
    assert "Missing scopes: inference" in refused.value.message
    change(gateway, scopes=frozenset({KeyScope.INFERENCE}))
    await ask(client)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"scopes": frozenset({KeyScope.FILES})}, "missing_scope"),
        ({"models": (AllowedModels("key", KEY_ID, ()),)}, "model_not_found"),
    ],
)
async def test_a_rule_that_this_process_has_not_heard_of_holds_for_the_very_next_request(
    gateway: GatewayStack, client: AsyncOpenAI, changes: dict[str, object], code: str
) -> None:
    gateway.keys.cached[KEY] = principal(revision=1)
    change(gateway, revision=2, **changes)
    await RedisRevisions(gateway.redis).raise_to(ORGANIZATION, 2)
    with pytest.raises(openai.PermissionDeniedError) as refused:
        await ask(client)
    assert refused.value.code == code
    assert gateway.server.log == []
    await gateway.nothing_is_held()
