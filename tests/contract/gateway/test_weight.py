"""The weight of an organization reaches the replica that serves it, signed."""

import msgspec
from aiohttp import ClientSession

from support.fakes.gateway_ports import BASE
from support.gateway_stack import HELLO, KEY, GatewayStack


async def test_the_replica_is_told_the_organization_s_weight(gateway: GatewayStack) -> None:
    gateway.keys.tenants[KEY] = msgspec.structs.replace(gateway.keys.tenants[KEY], weight=7)
    async with ClientSession() as session:
        answer = await gateway.post(session, {"model": BASE.id, "messages": HELLO, "max_tokens": 1})
        assert answer.status == 200
    assert [sent.claims.weight for sent in gateway.server.log] == [7]
