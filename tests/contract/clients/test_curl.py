"""`curl`, as the README shows it."""

import asyncio
import json

from contract.clients.conftest import Run
from support.fakes.gateway_ports import BASE
from support.gateway_stack import CHAT, HELLO, KEY, GatewayStack, until

BODY: dict[str, object] = {"model": BASE.id, "messages": HELLO}


def _command(gateway: GatewayStack, body: dict[str, object], *options: str, key: str = KEY) -> list[str]:
    headers = ("-H", f"Authorization: Bearer {key}", "-H", "Content-Type: application/json")
    return ["curl", "-sS", *options, gateway.url + CHAT, *headers, "-d", json.dumps(body)]


async def test_a_whole_answer(gateway: GatewayStack, run: Run) -> None:
    answer = json.loads(await run(*_command(gateway, BODY)))
    assert answer["choices"][0]["message"]["content"].startswith("word1 ")
    assert answer["usage"]["total_tokens"] == 12


async def test_a_stream(gateway: GatewayStack, run: Run) -> None:
    *events, done, rest = (await run(*_command(gateway, {**BODY, "stream": True}, "-N"))).split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    deltas = [json.loads(event.removeprefix("data: "))["choices"][0]["delta"] for event in events]
    assert "".join(delta.get("content") or "" for delta in deltas).startswith("word1 word2 ")


async def test_an_error_has_its_status(gateway: GatewayStack, run: Run) -> None:
    answer, status = (await run(*_command(gateway, BODY, "-w", "\n%{http_code}", key="ty-wrong"))).split("\n")
    assert (json.loads(answer)["error"]["code"], status) == ("invalid_api_key", "401")


async def test_it_comes_back_when_it_is_told_to(gateway: GatewayStack, run: Run) -> None:
    gateway.server.behaviour.status = 503
    running = asyncio.create_task(run(*_command(gateway, BODY, "--retry", "3")))
    await until(lambda: gateway.server.log)
    gateway.server.behaviour.status = 200
    assert '"finish_reason":"stop"' in await running
