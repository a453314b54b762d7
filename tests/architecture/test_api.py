"""Every route says what it answers, in code and in the OpenAPI description."""

import ast
import asyncio
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import SecretStr
from starlette.responses import StreamingResponse

from support.source_tree import listed, source_files
from tokenyard.bootstrap.gateway import application
from tokenyard.bootstrap.migrate import bring_up_to_date
from tokenyard.settings import Settings

UNTYPED = ("dict", "Dict", "Any", "object", "Mapping", "JSONResponse", "Response", "StreamingResponse", "None")


@pytest.fixture
async def gateway(tmp_path: Path) -> FastAPI:
    """The control plane of a gateway; it has its prices from SQL, and nothing is asked of Redis."""
    settings = Settings(data_dir=tmp_path, secret=SecretStr("s" * 32))
    await asyncio.to_thread(bring_up_to_date, settings)
    async with application(settings, "control") as app:
        assert isinstance(app, FastAPI)
        return app


def test_every_route_function_names_its_answer() -> None:
    """Pages for browsers and a replica's internal routes are not of the API; a file has its `response_class`."""
    found = [
        f"{file.name}:{function.lineno} {function.name} -> {ast.unparse(function.returns) if function.returns else ''}"
        for file in source_files()
        if not {"tokenyard_dashboard", "tokenyard_deployments"} & set(file.path.parts)
        for function, decorator in file.routes()
        if not {"response_model", "response_class", "include_in_schema"} & {word.arg for word in decorator.keywords}
        and not _is_204(decorator)
        and _untyped(function.returns)
    ]
    assert not found, listed(found)


async def test_every_route_has_a_response_model(gateway: FastAPI) -> None:
    found = [
        f"{sorted(route.methods)[0]} {route.path}"
        for route in gateway.routes
        if isinstance(route, APIRoute)
        and route.include_in_schema
        and route.response_model is None
        and route.status_code != 204
        and route.response_class is not StreamingResponse
        and "json" in (getattr(route.response_class, "media_type", None) or "application/json")
    ]
    assert not found, listed(found)


async def test_the_openapi_description_is_complete(gateway: FastAPI) -> None:
    description = gateway.openapi()
    found = []
    names: dict[str, str] = {}
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            where = f"{method.upper()} {path}"
            for status, response in operation["responses"].items():
                if status == "204" or not status.startswith("2"):
                    continue
                content = response.get("content", {})
                if not content or ("application/json" in content and not _says_something(content["application/json"])):
                    found.append(f"{where}: says nothing of {status}")
            if operation["operationId"] in names:
                found.append(f"{where}: has the operation id of {names[operation['operationId']]}")
            names[operation["operationId"]] = where
    assert len(names) > 20
    assert not found, listed(found)


def _says_something(media: dict[str, object]) -> bool:
    schema = media.get("schema")
    return isinstance(schema, dict) and bool({"$ref", "anyOf", "oneOf", "allOf", "items", "properties"} & set(schema))


def _untyped(annotation: ast.expr | None) -> bool:
    if annotation is None:
        return True
    names = {ast.unparse(node) for node in ast.walk(annotation) if isinstance(node, ast.Name | ast.Constant)}
    return any(name.strip("'\"") in UNTYPED for name in names)


def _is_204(decorator: ast.Call) -> bool:
    return any(word.arg == "status_code" and ast.unparse(word.value).endswith("204") for word in decorator.keywords)
