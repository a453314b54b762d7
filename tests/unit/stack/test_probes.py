"""What `tokenyard up` waits for: a gateway is ready before it has all that it needs to serve."""

from support.servers.asgi import running
from tokenyard.stack.processes.probes import able_to_serve
from tokenyard.web.app import create_app
from tokenyard.web.health import Dependencies


async def test_a_gateway_is_able_to_serve_when_it_lacks_nothing() -> None:
    there: set[str] = set()

    async def redis() -> bool:
        return "redis" in there

    async def replicas() -> bool:
        return "replicas" in there

    dependencies = Dependencies({"redis": redis, "replicas": replicas})
    async with running(create_app(title="gateway", dependencies=dependencies)) as url:
        probe = able_to_serve(url)
        await dependencies.look()
        assert await probe() == f"{url} lacks: redis, replicas"
        there.add("redis")
        await dependencies.look()
        assert await probe() == f"{url} lacks: replicas"
        there.add("replicas")
        await dependencies.look()
        assert await probe() is None
    assert await probe() == f"{url} does not answer (ClientConnectorError)"


async def test_what_is_no_gateway_is_not_able_to_serve() -> None:
    async with running(create_app(title="something else", dependencies=None)) as url:
        assert (await able_to_serve(f"{url}/elsewhere")() or "").endswith("does not answer (KeyError)")
