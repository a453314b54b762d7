"""OpenAI's own client reads our answers: projects and keys of a project."""

from typing import Any

import openai
import pytest
from openai.types.admin.organization.admin_api_key_create_response import AdminAPIKeyCreateResponse
from openai.types.admin.organization.admin_api_key_delete_response import AdminAPIKeyDeleteResponse
from openai.types.admin.organization.project import Project
from openai.types.admin.organization.projects.api_key_delete_response import APIKeyDeleteResponse
from openai.types.admin.organization.projects.project_api_key import ProjectAPIKey

from support.openai_schema import check_openai_schema, check_openai_type
from support.tenancy_stand import Tenancy
from tokenyard.tenancy.api_keys import BOOTSTRAP


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def client(tenancy: Tenancy, secret: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        api_key=secret, admin_api_key=secret, base_url="http://gateway/v1", http_client=tenancy.http, max_retries=0
    )


async def test_projects_and_keys_through_the_sdk(tenancy: Tenancy) -> None:
    organization, secret = await tenancy.new_tenant("acme")
    for number in range(4):
        await tenancy.keys.create(organization.id, organization.default_project_id, name=f"k{number}", actor=BOOTSTRAP)
    admin = client(tenancy, secret).admin.organization.projects
    projects = [project async for project in admin.list()]
    assert [project.id for project in projects] == [organization.default_project_id]
    Project.model_validate((await admin.retrieve(organization.default_project_id)).model_dump(), strict=True)
    keys = [key async for key in admin.api_keys.list(organization.default_project_id, limit=2)]
    assert sorted(key.name for key in keys) == ["first", "k0", "k1", "k2", "k3"]
    for key in keys:
        ProjectAPIKey.model_validate(key.model_dump(), strict=True)
    named = {key.name: key for key in keys}
    deleted = await admin.api_keys.delete(named["k0"].id, project_id=organization.default_project_id)
    assert deleted.deleted
    kept = named["k1"].id
    assert (await admin.api_keys.retrieve(kept, project_id=organization.default_project_id)).id == kept


async def replies_of(tenancy: Tenancy) -> dict[str, dict[str, Any]]:
    """What `/v1` sends, by the name of OpenAI's schema, without what we add to what is read singly."""
    organization, secret = await tenancy.new_tenant("acme")
    projects = "/v1/organization/projects"
    keys = f"{projects}/{organization.default_project_id}/api_keys"

    async def sent(method: str, path: str) -> dict[str, Any]:
        answer = await tenancy.http.request(method, path, json={"name": "k"}, headers=bearer(secret))
        assert answer.status_code == 200
        found: dict[str, Any] = answer.json()
        return found

    made = await sent("POST", keys)
    replies = {
        "ProjectListResponse": await sent("GET", projects),
        "ProjectApiKeyListResponse": await sent("GET", keys),
        "Project": await sent("GET", f"{projects}/{organization.default_project_id}"),
        "ProjectApiKey": await sent("GET", f"{keys}/{made['id']}"),
        "ProjectApiKeyDeleteResponse": await sent("DELETE", f"{keys}/{made['id']}"),
    }
    more = {"organization_id", "project_id", "limits", "expires_at", "revoked_at"}
    more |= {"models", "model_limits", "scopes", "addresses"}
    for name in ("Project", "ProjectApiKey"):
        assert "limits" in replies[name]
        replies[name] = {field: value for field, value in replies[name].items() if field not in more}
    return replies


async def test_what_v1_sends_has_the_fields_of_openai_s_types(tenancy: Tenancy) -> None:
    replies = await replies_of(tenancy)
    for project in (replies["Project"], *replies["ProjectListResponse"]["data"]):
        check_openai_type(project, Project)
    for key in (replies["ProjectApiKey"], *replies["ProjectApiKeyListResponse"]["data"]):
        check_openai_type(key, ProjectAPIKey)
    check_openai_type(replies["ProjectApiKeyDeleteResponse"], APIKeyDeleteResponse)


async def test_what_v1_sends_is_as_openai_s_schemas_say(tenancy: Tenancy) -> None:
    for name, reply in (await replies_of(tenancy)).items():
        check_openai_schema(reply, name)


async def test_an_operator_s_key_is_shown_as_openai_shows_admin_keys(tenancy: Tenancy) -> None:
    made = (await tenancy.as_operator("POST", "/admin/operator_keys", {"name": "second"})).json()
    deleted = (await tenancy.as_operator("DELETE", f"/admin/operator_keys/{made['id']}")).json()
    assert made.pop("revoked_at") is made.pop("addresses") is None
    check_openai_type(made, AdminAPIKeyCreateResponse)
    check_openai_type(deleted, AdminAPIKeyDeleteResponse)


async def test_errors_are_the_sdk_s_own(tenancy: Tenancy) -> None:
    _, secret = await tenancy.new_tenant("acme")
    with pytest.raises(openai.AuthenticationError) as wrong:
        await client(tenancy, secret[:-1]).admin.organization.projects.retrieve("proj_x")
    assert wrong.value.code == "invalid_api_key"
    assert secret[:-1] not in wrong.value.message
    with pytest.raises(openai.PermissionDeniedError):
        await client(tenancy, tenancy.operator_secret).admin.organization.projects.retrieve("proj_x")
    with pytest.raises(openai.NotFoundError):
        await client(tenancy, secret).admin.organization.projects.retrieve("proj_x")
