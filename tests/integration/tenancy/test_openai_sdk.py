"""OpenAI's own client reads our answers: projects and keys of a project."""

from typing import TYPE_CHECKING

import openai
import pytest
from openai.types.admin.organization.project import Project
from openai.types.admin.organization.projects.project_api_key import ProjectAPIKey

from tokenyard.tenancy.api_keys import BOOTSTRAP

if TYPE_CHECKING:
    from conftest import Tenancy


def client(tenancy: "Tenancy", secret: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        api_key=secret, admin_api_key=secret, base_url="http://gateway/v1", http_client=tenancy.http, max_retries=0
    )


async def test_projects_and_keys_through_the_sdk(tenancy: "Tenancy") -> None:
    organization, secret = await tenancy.new_tenant("acme")
    for number in range(4):
        await tenancy.keys.create(organization.id, organization.default_project, name=f"k{number}", actor=BOOTSTRAP)
    admin = client(tenancy, secret).admin.organization.projects
    projects = [project async for project in admin.list()]
    assert [project.id for project in projects] == [organization.default_project]
    Project.model_validate((await admin.retrieve(organization.default_project)).model_dump(), strict=True)
    keys = [key async for key in admin.api_keys.list(organization.default_project, limit=2)]
    assert sorted(key.name for key in keys) == ["first", "k0", "k1", "k2", "k3"]
    for key in keys:
        ProjectAPIKey.model_validate(key.model_dump(), strict=True)
    named = {key.name: key for key in keys}
    deleted = await admin.api_keys.delete(named["k0"].id, project_id=organization.default_project)
    assert deleted.deleted
    kept = named["k1"].id
    assert (await admin.api_keys.retrieve(kept, project_id=organization.default_project)).id == kept


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
