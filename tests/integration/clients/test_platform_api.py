"""The client of our own API against answers of every kind; against the real ones it is tested with the commands."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from support.servers.asgi import running
from support.servers.free_ports import free_port
from tokenyard.clients.platform_api.connection import ApiConnection, ApiFailed
from tokenyard.clients.platform_api.operator_api import OperatorApi
from tokenyard.clients.platform_api.shapes import LimitsInfo

KEY = {"id": "key_0", "name": "n", "redacted_value": "ty-...abcd", "created_at": 1, "expires_at": None, "more": [1]}


def _app() -> FastAPI:
    app = FastAPI()

    @app.get("/admin/organizations/o/api_keys")
    async def keys(request: Request) -> Response:
        assert request.headers["authorization"] == "Bearer ty-admin-x"
        first = int((request.query_params.get("after") or "key_-1").removeprefix("key_")) + 1
        data = [KEY | {"id": f"key_{number}"} for number in (first, first + 1)]
        return JSONResponse({"object": "list", "data": data, "has_more": first < 4, "last_id": data[-1]["id"]})

    @app.get("/admin/usage")
    async def usage(request: Request) -> Response:
        page = int(request.query_params.get("page") or 0)
        bucket = {"object": "bucket", "start_time": page, "end_time": page + 1, "results": []}
        return JSONResponse({"object": "page", "data": [bucket], "next_page": str(page + 1) if page < 2 else None})

    @app.patch("/admin/organizations/{organization}")
    async def change(organization: str, request: Request) -> Response:
        return JSONResponse({"error": {"message": (await request.body()).decode(), "code": organization}}, 400)

    @app.get("/admin/organizations/{organization:path}")
    async def organization(organization: str) -> Response:
        match organization:
            case "refused":
                return JSONResponse({"error": {"message": "No.", "type": "t", "param": None, "code": "not_found"}}, 404)
            case "page":
                return PlainTextResponse("<html>Bad gateway</html>", 502)
            case "strange":
                return JSONResponse({"id": 5})
            case "slow":
                await asyncio.sleep(5)
        return JSONResponse({"error": {"message": organization}}, 400)

    return app


@pytest.fixture
async def api() -> AsyncIterator[OperatorApi]:
    async with running(_app()) as url, ApiConnection(url, timeout_s=1.0) as connection:
        yield OperatorApi(connection, "ty-admin-x")


@pytest.mark.parametrize(
    ("organization", "failure", "message"),
    [
        ("refused", (404, "not_found", False), "No."),
        ("page", (502, None, True), "The server answered 502."),
        ("strange", (502, None, True), "The answer to GET /admin/organizations/strange is not understood: id"),
        ("a/b?c#d", (400, None, False), "a/b?c#d"),
        ("slow", (0, None, True), "does not answer (TimeoutError)"),
    ],
)
async def test_every_failure_is_one_exception(
    api: OperatorApi, organization: str, failure: tuple[int, str | None, bool], message: str
) -> None:
    with pytest.raises(ApiFailed) as failed:
        await api.organization(organization)
    assert (failed.value.status, failed.value.code, failed.value.passing) == failure
    assert message in str(failed.value)


async def test_nothing_that_listens_is_a_failure_without_a_status() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    async with ApiConnection(url) as connection:
        with pytest.raises(ApiFailed, match=f"The gateway at {url} does not answer") as failed:
            await OperatorApi(connection, "ty-admin-x").organization("o")
    assert failed.value.status == 0


async def test_a_list_is_read_page_after_page_and_kept_whole(api: OperatorApi) -> None:
    keys = [key async for key in api.keys("o")]
    assert [key.id for key in keys] == [f"key_{number}" for number in range(6)]
    assert keys[0].as_json() == KEY


async def test_usage_is_read_page_after_page(api: OperatorApi) -> None:
    assert [bucket.start_time for bucket in await api.usage(0, bucket_width="1d")] == [0, 1, 2]


async def test_only_named_limits_are_sent(api: OperatorApi) -> None:
    changes = LimitsInfo.model_validate({"concurrency": None, "requests_per_day": 5})
    with pytest.raises(ApiFailed) as failed:
        await api.limit_organization("o", changes)
    assert str(failed.value) == '{"limits": {"requests_per_day": 5, "concurrency": null}}'
