"""Many streams at once: no frame is lost, and what is settled is what the model server sent."""

import asyncio

from aiohttp import ClientSession, TCPConnector

from support.fakes.gateway_ports import BASE
from support.gateway_stack import HELLO, GatewayStack
from tokenyard.metering.events import Outcome

STREAMS = 100
TOKENS = 20


async def test_many_streams(gateway: GatewayStack) -> None:
    behaviour = gateway.server.behaviour
    behaviour.tokens, behaviour.token_delay_s = TOKENS, 0.005
    async with ClientSession(connector=TCPConnector(limit=0)) as session:

        async def one() -> int:
            response = await gateway.post(session, {"model": BASE.id, "messages": HELLO, "stream": True})
            text = await response.read()
            assert text.endswith(b"data: [DONE]\n\n")
            return text.count(b'"content"')

        # The first event tells the role.
        assert await asyncio.gather(*(one() for _ in range(STREAMS))) == [1 + TOKENS] * STREAMS
    events = await gateway.settled(STREAMS)
    assert {event.outcome for event in events} == {Outcome.COMPLETED}
    sent = {entry.claims.attempt: entry.usage for entry in gateway.server.log}
    assert {event.claims.attempt: event.usage for event in events} == sent
    await gateway.nothing_is_held()
