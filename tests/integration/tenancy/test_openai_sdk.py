"""OpenAI's own client reads our answers: projects and keys of a project."""

from typing import TYPE_CHECKING, Any

import openai
import pytest
from openai.types.admin.organization.admin_api_key_create_response import AdminAPIKeyCreateResponse
from openai.types.admin.organization.admin_api_key_delete_response import AdminAPIKeyDeleteResponse
from openai.types.admin.organization.project import Project
from openai.types.admin.organization.projects.api_key_delete_response import APIKeyDeleteResponse
from openai.types.admin.organization.projects.project_api_key import ProjectAPIKey

from support.openai_schema import check_openai_schema, check_openai_type
from tokenyard.tenancy.api_keys import BOOTSTRAP

if TYPE_CHECKING:
    from conftest import Tenancy


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def client(tenancy: "Tenancy", secret: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        api_key=secret, admin_api_key=secret, base_url="http://gateway/v1", http_client=tenancy.http, max_retries=0
    )


async def test_projects_and_keys_through_the_sdk(tenancy: "Tenancy") -> None:
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


async def test_what_v1_sends_is_what_openai_s_types_and_schemas_say(tenancy: "Tenancy") -> None:
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
    # What is read singly tells more than OpenAI's.
    more = {"organization_id", "project_id", "limits", "expires_at", "revoked_at"}
    for name in ("Project", "ProjectApiKey"):
        assert "limits" in replies[name]
        replies[name] = {field: value for field, value in replies[name].items() if field not in more}
    check_openai_type(replies["ProjectListResponse"]["data"][0], Project)
    check_openai_type(replies["ProjectApiKeyListResponse"]["data"][0], ProjectAPIKey)
    check_openai_type(replies["ProjectApiKeyDeleteResponse"], APIKeyDeleteResponse)
    for name, reply in replies.items():
        check_openai_schema(reply, name)


async def test_an_operator_s_key_is_shown_as_openai_shows_admin_keys(tenancy: "Tenancy") -> None:
    made = (await tenancy.as_operator("POST", "/admin/operator_keys", {"name": "second"})).json()
    listed = (await tenancy.as_operator("GET", "/admin/operator_keys")).json()
    deleted = (await tenancy.as_operator("DELETE", f"/admin/operator_keys/{made['id']}")).json()
    for key in (made, *listed["data"]):
        assert key.pop("revoked_at") is None
    check_openai_type(made, AdminAPIKeyCreateResponse)
    check_openai_type(deleted, AdminAPIKeyDeleteResponse)
    check_openai_schema(made, "AdminApiKeyCreateResponse")
    check_openai_schema(listed, "ApiKeyList")


async def test_errors_are_the_sdk_s_own(tenancy: "Tenancy") -> None:
    _, secret = await tenancy.new_tenant("acme")
    with pytest.raises(openai.AuthenticationError) as wrong:
        await client(tenancy, secret[:-1]).admin.organization.projects.retrieve("proj_x")
    assert wrong.value.code == "invalid_api_key"
    assert secret[:-1] not in wrong.value.message
    with pytest.raises(openai.PermissionDeniedError):
        await client(tenancy, tenancy.operator_secret).admin.organization.projects.retrieve("proj_x")
    with pytest.raises(openai.NotFoundError):
        await client(tenancy, secret).admin.organization.projects.retrieve("proj_x")
