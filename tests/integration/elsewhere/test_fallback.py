"""A server elsewhere stands in for our replicas, at our model's name and price, where none of them can be had."""

from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
from aiohttp import ClientSession
from redis.asyncio import Redis

from support.elsewhere_stack import FALLBACK, SOLD, ElsewhereStack, elsewhere_stack, told_outside
from support.fakes.admission_requests import ORGANIZATION
from support.fakes.model_server import Behaviour
from support.fakes.server_elsewhere import Elsewhere
from support.gateway_stack import HELLO
from tokenyard.core.adapters import AdapterRef
from tokenyard.core.ids import AdapterId
from tokenyard.core.models import WakingBounds
from tokenyard.core.replica import Replica
from tokenyard.core.usage import TokenUsage
from tokenyard.metering.events import Outcome

WHOLE: dict[str, object] = {"model": SOLD, "messages": HELLO}
STREAM: dict[str, object] = {**WHOLE, "stream": True}
both = pytest.mark.parametrize("body", [WHOLE, STREAM], ids=["whole", "stream"])
GONE = Replica("replica-gone", SOLD, "http://127.0.0.1:9")


@pytest.fixture
async def backed(redis: Redis, tmp_path: Path) -> AsyncIterator[ElsewhereStack]:
    async with elsewhere_stack(redis, tmp_path) as stack:
        stack.fall_back()
        yield stack


async def _answer(stack: ElsewhereStack, body: dict[str, object]) -> tuple[int, str]:
    async with ClientSession() as session:
        response = await stack.gateway.post(session, body)
        text = await response.text()
    assert not list(told_outside(stack.gateway, text))
    assert FALLBACK not in text
    return response.status, text


@both
async def test_not_while_a_replica_serves(backed: ElsewhereStack, body: dict[str, object]) -> None:
    assert (await _answer(backed, body))[0] == 200
    assert backed.server.log == []
    (settled,) = await backed.gateway.settled()
    assert settled.claims.server == ""


@both
@pytest.mark.parametrize("dead", [[], [GONE]], ids=["none", "refuses"])
async def test_where_no_replica_can_be_asked(
    backed: ElsewhereStack, dead: list[Replica], body: dict[str, object]
) -> None:
    backed.gateway.replicas.listed[:] = dead
    status, text = await _answer(backed, body)
    assert status == 200
    assert "word8" in text
    assert f'"model":"{SOLD}"' in text
    (settled,) = await backed.gateway.settled()
    claims = settled.claims
    assert (settled.outcome, settled.usage) == (Outcome.COMPLETED, TokenUsage(7, 8, 2))
    assert (claims.server, claims.model, claims.base_model, claims.price) == (FALLBACK, SOLD, SOLD, f"test/{SOLD}")
    assert claims.attempt.endswith(f".{1 + len(dead)}")
    await backed.gateway.nothing_is_held()


async def test_a_model_that_sleeps_is_woken_and_nobody_waits_for_it(backed: ElsewhereStack) -> None:
    backed.set_base(waking=WakingBounds(requests=4, wait_s=60))
    backed.gateway.replicas.listed.clear()
    status, text = await _answer(backed, WHOLE)
    assert status == 200
    assert "word8" in text
    assert backed.gateway.replicas.called_for == [SOLD]


@both
@pytest.mark.parametrize("behaviour", [Behaviour(cut_at=0), Behaviour(status=503)], ids=["cut", "busy"])
async def test_where_an_attempt_failed_before_its_first_byte(
    backed: ElsewhereStack, behaviour: Behaviour, body: dict[str, object]
) -> None:
    backed.gateway.server.behaviour = behaviour
    status, text = await _answer(backed, body)
    assert status == 200
    assert "word8" in text
    (settled,) = await backed.gateway.settled()
    assert (settled.claims.server, settled.claims.attempt[-2:]) == (FALLBACK, ".2")


@pytest.mark.parametrize(
    "behaviour",
    [Behaviour(status=400, body=b'{"error": {"message": "no"}}'), Behaviour(status=500), Behaviour(status=429)],
    ids=["refused", "failed", "its own share is full"],
)
async def test_not_for_what_is_the_requests_or_the_tenants_own(backed: ElsewhereStack, behaviour: Behaviour) -> None:
    backed.gateway.server.behaviour = behaviour
    assert (await _answer(backed, WHOLE))[0] == behaviour.status
    assert backed.server.log == []


async def test_not_after_the_first_byte(backed: ElsewhereStack) -> None:
    backed.gateway.server.behaviour = Behaviour(cut_at=2, token_delay_s=0.01)
    _, text = await _answer(backed, STREAM)
    assert text.strip().split("\n\n")[-1].startswith('data: {"error":')
    assert backed.server.log == []


async def test_not_for_a_fine_tuned_model(backed: ElsewhereStack) -> None:
    name = f"ft:{SOLD}:acme::1"
    backed.gateway.models.fine_tuned[ORGANIZATION, name] = AdapterRef(AdapterId("1"), name, "path", "digest")
    backed.gateway.replicas.listed.clear()
    assert (await _answer(backed, {**WHOLE, "model": name}))[0] == 503
    assert backed.server.log == []


async def test_not_for_what_it_does_not_take_or_has_no_room_for(backed: ElsewhereStack) -> None:
    backed.gateway.replicas.listed.clear()
    backed.fall_back(refuses=("n",))
    assert (await _answer(backed, {**WHOLE, "n": 2}))[0] == 503
    assert (await _answer(backed, WHOLE))[0] == 200
    assert len(backed.server.log) == 1


@both
async def test_where_it_fails_too_the_client_hears_of_ours(backed: ElsewhereStack, body: dict[str, object]) -> None:
    backed.gateway.replicas.listed[:] = [GONE]
    backed.server.behaviour = Elsewhere(status=400, body=b'{"error": {"message": "their limits are others"}}')
    status, text = await _answer(backed, body)
    assert (status, orjson.loads(text)["error"]["code"]) == (503, "server_is_overloaded")
    (settled,) = await backed.gateway.settled()
    assert settled.outcome is Outcome.FAILED
    await backed.gateway.nothing_is_held()
