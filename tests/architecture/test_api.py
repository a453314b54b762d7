"""Every route says what it answers, in code and in the OpenAPI description."""

import ast
import asyncio
import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any, get_args

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import SecretStr
from starlette.responses import StreamingResponse

from support.openai_schema import openai_description
from support.source_tree import listed, source_files
from tokenyard.bootstrap.gateway import application
from tokenyard.bootstrap.migrate import bring_up_to_date
from tokenyard.settings import Settings

UNTYPED = ("dict", "Dict", "Any", "object", "Mapping", "JSONResponse", "Response", "StreamingResponse", "None")

REFUSED_QUERIES = {
    "/v1/organization/projects include_archived",
    "/v1/organization/projects/{project}/api_keys owner_project_access",
    *(f"/v1/organization/audit_logs {name}" for name in ("actor_emails", "before", "project_ids", "tenant_only")),
    *(f"/v1/organization/projects/{{project}}/rate_limits {name}" for name in ("after", "before", "limit")),
}
"""What OpenAI knows there and we do not: it is refused by name, but for pages of what comes whole."""


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


async def test_what_is_read_is_described(gateway: FastAPI) -> None:
    """A route that reads the body by itself says in `openapi_extra` what it takes."""
    described = gateway.openapi()["paths"]
    found = [
        f"{method} {route.path}"
        for route in gateway.routes
        if isinstance(route, APIRoute) and route.include_in_schema
        for method in route.methods & {"POST", "PUT", "PATCH"}
        if "body(" in (source := inspect.getsource(route.endpoint)) or "request.stream(" in source
        if "requestBody" not in described[route.path][method.lower()]
    ]
    assert not found, listed(found)


async def test_what_is_left_out_is_not_described_as_required(gateway: FastAPI) -> None:
    found = [
        f"{route.path}: {name}"
        for route in gateway.routes
        if isinstance(route, APIRoute) and (route.response_model_exclude_none or route.response_model_exclude)
        for name, field in route.response_model.model_fields.items()
        if field.is_required()
        and (NoneType in get_args(field.annotation) or name in (route.response_model_exclude or ()))
    ]
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


async def test_what_openai_lets_one_ask_is_described_or_named_here(gateway: FastAPI) -> None:
    """Else a client would filter by something, and get everything."""
    ours, theirs = gateway.openapi()["paths"], openai_description()["paths"]
    found = {
        f"{path} {name}"
        for path, operations in ours.items()
        for method, operation in operations.items()
        for name in _queries(_theirs(theirs, path).get(method, {})) - _queries(operation)
    }
    assert found == REFUSED_QUERIES


def _theirs(paths: Mapping[str, Any], ours: str) -> Mapping[str, Any]:
    """Return OpenAI's operations at a path of ours, whatever each calls its parameters."""
    wanted = _without_names(ours.removeprefix("/v1"))
    return next((found for path, found in paths.items() if _without_names(path) == wanted), {})


def _without_names(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "{}", path)


def _queries(operation: Mapping[str, Any]) -> set[str]:
    return {one["name"].removesuffix("[]") for one in operation.get("parameters", ()) if one.get("in") == "query"}
