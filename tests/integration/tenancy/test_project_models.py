"""What holds for models in a project, through OpenAI's own client and in its shapes."""

import openai
import pytest
from openai.types.admin.organization.projects import project_model_permissions, project_rate_limit
from openai.types.admin.organization.projects.project_model_permissions_deleted import ProjectModelPermissionsDeleted

from support.openai_schema import check_openai_schema, check_openai_type
from support.tenancy_stand import Tenancy, bearer
from tokenyard.core.principal import Limits
from tokenyard.tenancy.plans.views import UNLIMITED


def client(tenancy: Tenancy, secret: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        api_key=secret, admin_api_key=secret, base_url="http://gateway/v1", http_client=tenancy.http, max_retries=0
    )


async def test_rate_limits_of_models_through_the_sdk(tenancy: Tenancy) -> None:
    organization, secret = await tenancy.new_tenant("acme")
    project = organization.default_project_id
    limits = client(tenancy, secret).admin.organization.projects.rate_limits
    async with tenancy.other_process() as process:
        await process.authenticator.tenant(secret)
        made = await limits.update_rate_limit("small", project_id=project, max_requests_per_1_minute=5)
        assert (made.id, made.model, made.max_requests_per_1_minute) == ("small", "small", 5)
        assert made.max_tokens_per_1_minute == UNLIMITED
        await process.is_told(organization.id)
        caller = await process.authenticator.tenant(secret)
    assert caller.using("small").limits[0].limits == Limits(requests_per_minute=5)
    assert caller.using("large").limits == caller.limits
    await limits.update_rate_limit("ft:small:*", project_id=project, max_tokens_per_1_minute=9)
    await limits.update_rate_limit("small", project_id=project, max_tokens_per_1_minute=7)
    listed = [one async for one in limits.list_rate_limits(project)]
    assert {one.model: (one.max_requests_per_1_minute, one.max_tokens_per_1_minute) for one in listed} == {
        "small": (5, 7),
        "ft:small:*": (UNLIMITED, 9),
    }
    gone = await limits.update_rate_limit(
        "small", project_id=project, max_requests_per_1_minute=UNLIMITED, max_tokens_per_1_minute=UNLIMITED
    )
    assert gone.max_requests_per_1_minute == UNLIMITED
    assert [one.model async for one in limits.list_rate_limits(project)] == ["ft:small:*"]


async def test_model_permissions_through_the_sdk(tenancy: Tenancy) -> None:
    organization, secret = await tenancy.new_tenant("acme")
    project = organization.default_project_id
    permissions = client(tenancy, secret).admin.organization.projects.model_permissions
    with pytest.raises(openai.NotFoundError):
        await permissions.retrieve(project)
    made = await permissions.update(project, mode="allow_list", model_ids=["small"])
    assert (made.mode, made.api_model_ids) == ("allow_list", ["small"])
    assert (await permissions.retrieve(project)).api_model_ids == ["small"]
    caller = await tenancy.deaf_process().tenant(secret)
    assert [(allowed.scope, allowed.id, allowed.patterns) for allowed in caller.models] == [
        ("project", project, ("small",))
    ]
    with pytest.raises(openai.BadRequestError) as refused:
        await permissions.update(project, mode="deny_list", model_ids=["small"])
    assert refused.value.param == "mode", "never taken for its opposite"
    assert (await permissions.delete(project)).deleted
    assert (await tenancy.deaf_process().tenant(secret)).models == ()


async def test_what_is_sent_is_as_openai_says(tenancy: Tenancy) -> None:
    organization, secret = await tenancy.new_tenant("acme")
    path = f"/v1/organization/projects/{organization.default_project_id}"
    headers = bearer(secret)
    limit = await tenancy.http.post(f"{path}/rate_limits/a/b", json={"max_requests_per_1_day": 1}, headers=headers)
    listed = await tenancy.http.get(f"{path}/rate_limits", headers=headers)
    body = {"mode": "allow_list", "model_ids": ["small"]}
    made = await tenancy.http.post(f"{path}/model_permissions", json=body, headers=headers)
    deleted = await tenancy.http.delete(f"{path}/model_permissions", headers=headers)
    check_openai_type(limit.json(), project_rate_limit.ProjectRateLimit)
    check_openai_type(made.json(), project_model_permissions.ProjectModelPermissions)
    check_openai_type(deleted.json(), ProjectModelPermissionsDeleted)
    check_openai_schema(limit.json(), "ProjectRateLimit")
    check_openai_schema(listed.json(), "ProjectRateLimitListResponse")
    check_openai_schema(made.json(), "ProjectModelPermissions")
    check_openai_schema(deleted.json(), "ProjectModelPermissionsDeleteResponse")


@pytest.mark.parametrize("field", ["max_images_per_1_minute", "batch_1_day_max_input_tokens"])
async def test_a_limit_that_is_not_kept_is_refused_by_name(tenancy: Tenancy, field: str) -> None:
    organization, secret = await tenancy.new_tenant("acme")
    path = f"/v1/organization/projects/{organization.default_project_id}/rate_limits/small"
    refused = await tenancy.http.post(path, json={field: 1}, headers=bearer(secret))
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, field)


async def test_another_organization_s_project_is_as_one_that_does_not_exist(tenancy: Tenancy) -> None:
    victim, _ = await tenancy.new_tenant("victim")
    _, thief = await tenancy.new_tenant("thief")
    body = {"mode": "allow_list", "model_ids": []}
    for method, rest, sent in (
        ("GET", "rate_limits", None),
        ("POST", "rate_limits/small", {"max_requests_per_1_minute": 0}),
        ("GET", "model_permissions", None),
        ("POST", "model_permissions", body),
        ("DELETE", "model_permissions", None),
    ):
        answers = [
            await tenancy.http.request(
                method, f"/v1/organization/projects/{project}/{rest}", json=sent, headers=bearer(thief)
            )
            for project in (victim.default_project_id, "proj_none")
        ]
        assert [answer.status_code for answer in answers] == [404, 404]
        assert answers[0].text.replace(victim.default_project_id, "proj_none") == answers[1].text
    shown = (await tenancy.as_operator("GET", "/admin/organizations/victim/projects")).json()["data"][0]
    assert (shown["models"], shown["model_limits"]) == (None, {})
