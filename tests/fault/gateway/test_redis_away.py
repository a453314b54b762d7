"""Redis goes away: new requests are refused, streams under way finish and are billed when it is back."""

from pathlib import Path

from aiohttp import ClientSession

from support.fakes.admission_requests import open_buckets
from support.fakes.gateway_ports import BASE
from support.gateway_stack import HELLO, gateway_stack
from support.servers.free_ports import free_port
from support.servers.valkey import Valkey
from tokenyard.metering.events import Outcome
from tokenyard.storage.redis import connect_redis


async def test_a_stream_outlives_redis(tmp_path: Path) -> None:
    (tmp_path / "valkey").mkdir()
    valkey = Valkey(tmp_path / "valkey", free_port())
    valkey.start()
    redis = connect_redis(valkey.url)
    try:
        async with gateway_stack(redis, tmp_path) as gateway, ClientSession() as session:
            gateway.server.behaviour.tokens, gateway.server.behaviour.token_delay_s = 30, 0.02
            response = await gateway.post(session, {"model": BASE.id, "messages": HELLO, "stream": True})
            assert response.status == 200
            valkey.kill()
            refused = await gateway.post(session, {"model": BASE.id, "messages": HELLO})
            assert refused.status == 503
            assert "retry-after" in refused.headers
            assert (await response.read()).endswith(b"data: [DONE]\n\n")
            valkey.start()
            await open_buckets(redis)
            (settled,) = await gateway.settled()
            assert settled.outcome is Outcome.COMPLETED
            assert settled.usage.completion_tokens == 30
    finally:
        await redis.aclose()
        valkey.kill()
