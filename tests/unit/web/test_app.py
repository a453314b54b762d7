"""What every app of ours answers by itself, and how it describes itself."""

from collections.abc import AsyncIterator

import aiohttp
import pytest
from fastapi import APIRouter
from fastapi.openapi.models import OpenAPI
from prometheus_client import CollectorRegistry, Counter
from pydantic import BaseModel
from sqlalchemy.exc import IntegrityError
from starlette.responses import StreamingResponse
from yarl import URL

from support.fakes.authenticator import FixedAuthenticator
from support.servers.asgi import running
from tokenyard.storage.outage import DatabaseDown
from tokenyard.web.app import create_app
from tokenyard.web.auth import CurrentOperator, CurrentTenant, FreshTenant
from tokenyard.web.health import Dependencies


class Thing(BaseModel):
    id: str


def router() -> APIRouter:
    routes = APIRouter()

    @routes.get("/v1/things/{name}")
    async def get_thing(name: int, _tenant: CurrentTenant) -> Thing:
        return Thing(id=str(name))

    @routes.post("/v1/things/count")
    async def count() -> Thing:
        return Thing(id="count")

    @routes.delete("/v1/things/{name}")
    async def delete_thing(name: int, _tenant: FreshTenant) -> Thing:
        return Thing(id=str(name))

    @routes.post("/admin/things")
    async def create_thing(thing: Thing, _operator: CurrentOperator) -> Thing:
        return thing

    return routes


async def good() -> bool:
    return True


async def broken() -> bool:
    raise OSError("no route")


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    registry = CollectorRegistry()
    Counter("things", "Things.", registry=registry)
    dependencies = Dependencies({"redis": good, "replicas": broken}, registry)
    app = create_app(
        title="Things",
        description="All about things.",
        routers=[router()],
        authenticator=FixedAuthenticator({}),
        dependencies=dependencies,
        registry=registry,
    )
    async with dependencies, running(app) as url, aiohttp.ClientSession(url) as session:
        yield session


async def test_it_is_alive_and_ready_whatever_it_lacks_and_tells_that(http: aiohttp.ClientSession) -> None:
    async with http.get("/health") as reply:
        assert (reply.status, await reply.json()) == (200, {"status": "ok"})
    async with http.get("/ready") as reply:
        checks = {"redis": "ok", "replicas": "failing"}
        assert (reply.status, await reply.json()) == (200, {"status": "ok", "checks": checks})
    async with http.get("/metrics") as reply:
        lines = (await reply.text()).splitlines()
    assert {line for line in lines if line.startswith("tokenyard_dependency_up")} == {
        'tokenyard_dependency_up{dependency="redis"} 1.0',
        'tokenyard_dependency_up{dependency="replicas"} 0.0',
    }
    async with http.head("/health") as reply:
        assert reply.status == 200


async def test_it_shows_its_metrics(http: aiohttp.ClientSession) -> None:
    async with http.get("/metrics") as reply:
        assert reply.content_type == "text/plain"
        assert "things_total 0.0" in await reply.text()


async def test_the_description_is_whole(http: aiohttp.ClientSession) -> None:
    async with http.get("/openapi.json") as reply:
        document = await reply.json()
    OpenAPI.model_validate(document)
    assert (document["info"]["title"], document["info"]["description"]) == ("Things", "All about things.")
    assert document["info"]["version"]
    things = document["paths"]["/v1/things/{name}"]
    assert things["get"]["security"] == things["delete"]["security"] == [{"ApiKey": []}]
    assert document["paths"]["/admin/things"]["post"]["security"] == [{"OperatorKey": []}]
    assert set(document["components"]["securitySchemes"]) == {"ApiKey", "OperatorKey"}
    assert set(document["components"]["schemas"]) == {"ErrorBody", "ErrorDetail", "Health", "Readiness", "Thing"}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert set(operation["responses"]) - {"503"} == {"200", "4XX", "5XX"}, path
            schema = operation["responses"]["4XX"]["content"]["application/json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/ErrorBody"}


async def test_what_it_says_of_errors_is_what_it_answers(http: aiohttp.ClientSession) -> None:
    async with http.get("/openapi.json") as reply:
        schemas = (await reply.json())["components"]["schemas"]
    for method, path in (("GET", "/v1/things/1"), ("POST", "/admin/things"), ("GET", "/nowhere"), ("PUT", "/health")):
        async with http.request(method, path) as reply:
            body = await reply.json()
        assert reply.status >= 400
        assert set(body) == set(schemas["ErrorBody"]["properties"])
        assert set(body["error"]) == set(schemas["ErrorDetail"]["properties"])


async def test_a_small_app_describes_nothing_and_no_app_has_pages(http: aiohttp.ClientSession) -> None:
    async with running(create_app(title="Small")) as url, aiohttp.ClientSession(url) as small:
        async with small.get("/openapi.json") as reply:
            assert reply.status == 404
    for path in ("/docs", "/redoc"):
        async with http.get(path) as reply:
            assert reply.status == 404


class Failures:
    """Routes that fail as told."""

    def __init__(self) -> None:
        self.errors: dict[str, Exception] = {}

    def router(self) -> APIRouter:
        routes = APIRouter()

        @routes.get("/fail/{name}")
        async def fail(name: str) -> Thing:
            raise self.errors[name]

        @routes.get("/halfway", response_class=StreamingResponse)
        async def halfway() -> StreamingResponse:
            async def pieces() -> AsyncIterator[bytes]:
                yield b"one"
                raise KeyError("a mistake of ours")

            return StreamingResponse(pieces())

        return routes


@pytest.fixture
def failures() -> Failures:
    return Failures()


@pytest.fixture
async def failing(failures: Failures) -> AsyncIterator[aiohttp.ClientSession]:
    app = create_app(title="Failures", routers=[failures.router()])
    async with running(app) as url, aiohttp.ClientSession(url) as session:
        yield session


async def test_an_unforeseen_error_is_found_in_the_log_by_its_request_id(
    failing: aiohttp.ClientSession, failures: Failures, caplog: pytest.LogCaptureFixture
) -> None:
    failures.errors = {
        "bug": KeyError("the inside"),
        "refused": IntegrityError("INSERT INTO inside", {}, Exception("the inside")),
    }
    for name in failures.errors:
        caplog.clear()
        async with failing.get(f"/fail/{name}") as reply:
            body = await reply.json()
        assert reply.status == 500
        assert body["error"] | {"message": ""} == {"message": "", "type": "server_error", "param": None, "code": None}
        assert "inside" not in str(body)
        assert reply.headers["x-request-id"].startswith("req_")
        [record] = [record for record in caplog.records if record.name == "tokenyard.web.errors"]
        assert record.levelname == "ERROR"
        assert reply.headers["x-request-id"] in record.getMessage()
        assert record.exc_info is not None
        assert record.exc_info[1] is failures.errors[name]


async def test_a_database_that_does_not_answer_is_503(failing: aiohttp.ClientSession, failures: Failures) -> None:
    failures.errors = {"down": DatabaseDown(ConnectionRefusedError())}
    async with failing.get("/fail/down") as reply:
        body = await reply.json()
    assert (reply.status, body["error"]["code"]) == (503, "server_is_overloaded")
    assert int(reply.headers["retry-after"]) > 0
    assert reply.headers["x-request-id"].startswith("req_")


async def test_an_answer_that_breaks_off_is_not_taken_for_whole(failing: aiohttp.ClientSession) -> None:
    async with failing.get("/halfway") as reply:
        assert reply.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            await reply.read()


async def test_every_answer_has_a_request_id_of_its_own(http: aiohttp.ClientSession) -> None:
    calls = (
        *(("GET", "/health"), ("GET", "/nowhere"), ("PUT", "/health"), ("GET", "/v1/things/1")),
        *(("POST", "/admin/things"), ("GET", "/v1/%00"), ("GET", "/openapi.json")),
    )
    seen = set()
    for method, path in calls:
        async with http.request(method, URL(path, encoded=True), headers={"x-request-id": "mine"}) as reply:
            seen.add(reply.headers.getone("x-request-id"))
    assert len(seen) == len(calls)
    assert "mine" not in seen


async def test_another_method_is_told_all_that_the_path_has(http: aiohttp.ClientSession) -> None:
    for method, path, allowed in (
        ("POST", "/v1/things/5", "DELETE, GET"),
        ("OPTIONS", "/v1/things/5", "DELETE, GET"),
        ("OPTIONS", "/v1/things/count", "POST"),
    ):
        response = await http.request(method, path)
        await response.read()
        assert (response.status, response.headers["allow"]) == (405, allowed)
