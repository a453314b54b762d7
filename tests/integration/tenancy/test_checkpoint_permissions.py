"""Permissions to use fine-tuned models, through OpenAI's own client and in its shapes; they hold at every gateway."""

import openai
import pytest
from openai.types.fine_tuning.checkpoints import (
    PermissionCreateResponse,
    PermissionDeleteResponse,
    PermissionListResponse,
)

from support.openai_errors import message_of
from support.openai_schema import check_openai_schema, check_openai_type
from support.tenancy_stand import Tenancy, bearer
from tokenyard.core.errors import PermissionDenied
from tokenyard.core.ids import OrganizationId, ProjectId
from tokenyard.core.principal import KeyScope, Limits
from tokenyard.tenancy.api_keys import BOOTSTRAP
from tokenyard.tenancy.permissions.store import MAX_PERMISSIONS
from tokenyard.tenancy.plans.rules import ModelRules

MODEL = "ft:small:acme:sky:0123456789abcdef"
FIRST, LAST = f"{MODEL}:ckpt-step-4", f"{MODEL}:ckpt-step-8"
NAMES = {MODEL: MODEL, FIRST: FIRST, LAST: MODEL}


class Organization:
    """An organization with a project that may use the base model only, and a key of that project."""

    def __init__(self, tenancy: Tenancy, identity: OrganizationId, secret: str) -> None:
        self.tenancy = tenancy
        self.id = identity
        self.secret = secret
        self.permissions = openai.AsyncOpenAI(
            api_key=secret, base_url="http://gateway/v1", http_client=tenancy.http, max_retries=0
        ).fine_tuning.checkpoints.permissions
        tenancy.fine_tuned.names[identity] = NAMES

    async def project(self, *models: str) -> tuple[ProjectId, str]:
        """Make a project that may use `models` only, and a key of it."""
        rules = ModelRules(models=list(models)).rules()
        made = await self.tenancy.store.create_project(
            self.id, name="bound", limits=Limits(), actor=BOOTSTRAP, rules=rules
        )
        _, secret = await self.tenancy.keys.create(self.id, made.id, name="bound", actor=BOOTSTRAP)
        return made.id, secret


@pytest.fixture
async def acme(tenancy: Tenancy) -> Organization:
    organization, secret = await tenancy.new_tenant("acme")
    return Organization(tenancy, organization.id, secret)


async def test_a_permission_adds_a_checkpoint_to_what_a_project_may_use(tenancy: Tenancy, acme: Organization) -> None:
    project, secret = await acme.project("small")
    async with tenancy.other_process() as process:
        denied = await process.authenticator.tenant(secret)
        with pytest.raises(PermissionDenied):
            denied.check_model(FIRST)
        [made] = (await acme.permissions.create(FIRST, project_ids=[project])).data
        assert made.project_id == project
        await process.is_told(acme.id)
        caller = await process.authenticator.tenant(secret)
        caller.check_model(FIRST)
        caller.check_model("small")
        with pytest.raises(PermissionDenied):
            caller.check_model(MODEL)
        assert caller.revision > denied.revision, "nothing paid goes on with what was known before"
        assert (await acme.permissions.delete(made.id, fine_tuned_model_checkpoint=FIRST)).deleted
        await process.is_told(acme.id, times=2)
        with pytest.raises(PermissionDenied):
            (await process.authenticator.tenant(secret)).check_model(FIRST)


async def test_the_lists_of_keys_and_of_the_organization_hold_all_the_same(
    tenancy: Tenancy, acme: Organization
) -> None:
    project, _ = await acme.project("small")
    await acme.permissions.create(FIRST, project_ids=[project])
    rules = ModelRules(models=["small"]).rules()
    _, bound = await tenancy.keys.create(acme.id, project, name="bound", actor=BOOTSTRAP, rules=rules)
    with pytest.raises(PermissionDenied, match="This API key"):
        (await tenancy.deaf_process().tenant(bound)).check_model(FIRST)


async def test_a_project_without_a_list_needs_no_permission_and_has_it_when_it_gets_one(
    tenancy: Tenancy, acme: Organization
) -> None:
    project = (await tenancy.deaf_process().tenant(acme.secret)).project
    (await tenancy.deaf_process().tenant(acme.secret)).check_model(LAST)
    await acme.permissions.create(FIRST, project_ids=[project])
    await tenancy.store.change_project(
        acme.id, project, name=None, limits=None, archived=None, actor=BOOTSTRAP,
        rules=ModelRules(models=["small"]).rules(),
    )  # fmt: skip
    caller = await tenancy.deaf_process().tenant(acme.secret)
    assert [allowed.patterns for allowed in caller.models] == [("small", FIRST)]


async def test_the_checkpoint_that_is_the_model_has_the_model_s_permissions(acme: Organization) -> None:
    project, secret = await acme.project("small")
    [made] = (await acme.permissions.create(LAST, project_ids=[project])).data
    assert [one.id async for one in acme.permissions.list(MODEL)] == [made.id]
    (await acme.tenancy.deaf_process().tenant(secret)).check_model(MODEL)


async def test_pages_orders_and_filters(acme: Organization) -> None:
    projects = []
    for _ in range(3):
        projects.append((await acme.project("small"))[0])
        acme.tenancy.clock.advance(1)
        await acme.permissions.create(FIRST, project_ids=projects)
    listed = [one async for one in acme.permissions.list(FIRST, limit=2)]
    assert [one.project_id for one in listed] == projects[::-1], "asking again has made no second one"
    ascending = [one.project_id async for one in acme.permissions.list(FIRST, order="ascending", limit=1)]
    assert ascending == projects
    page = await acme.permissions.list(FIRST, limit=2)
    assert (page.has_more, page.last_id) == (True, listed[1].id)
    of_one = [one.id async for one in acme.permissions.list(FIRST, project_id=projects[1])]
    assert of_one == [listed[1].id]
    assert [one async for one in acme.permissions.list(MODEL)] == []
    with pytest.raises(openai.BadRequestError) as refused:
        await acme.permissions.list(FIRST, after="cp_unknown")
    assert refused.value.param == "after"


async def test_what_is_sent_is_as_openai_says(acme: Organization) -> None:
    project, _ = await acme.project("small")
    path, http, headers = f"/v1/fine_tuning/checkpoints/{FIRST}/permissions", acme.tenancy.http, bearer(acme.secret)
    made = (await http.post(path, json={"project_ids": [project]}, headers=headers)).json()
    listed = (await http.get(path, headers=headers)).json()
    deleted = (await http.delete(f"{path}/{made['data'][0]['id']}", headers=headers)).json()
    check_openai_type(made["data"][0], PermissionCreateResponse)
    check_openai_type(listed["data"][0], PermissionListResponse)
    check_openai_type(deleted, PermissionDeleteResponse)
    for page in (made, listed):
        check_openai_schema(page, "ListFineTuningCheckpointPermissionResponse")
        check_openai_schema(page["data"][0], "FineTuningCheckpointPermission")
    check_openai_schema(deleted, "DeleteFineTuningCheckpointPermissionResponse")
    assert made == listed


async def test_nothing_crosses_organizations(tenancy: Tenancy, acme: Organization) -> None:
    """I7."""
    organization, secret = await tenancy.new_tenant("rival")
    rival = Organization(tenancy, organization.id, secret)
    tenancy.fine_tuned.names[rival.id] = {}
    project, _ = await acme.project("small")
    [made] = (await acme.permissions.create(FIRST, project_ids=[project])).data
    for call in (
        rival.permissions.create(FIRST, project_ids=[organization.default_project_id]),
        rival.permissions.delete(made.id, fine_tuned_model_checkpoint=FIRST),
    ):
        with pytest.raises(openai.NotFoundError) as hidden:
            await call
        assert hidden.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        await rival.permissions.list(FIRST)
    told = []
    for other in (organization.default_project_id, "proj_unknown"):
        with pytest.raises(openai.BadRequestError) as refused:
            await acme.permissions.create(FIRST, project_ids=[project, other])
        assert (refused.value.param, refused.value.code) == ("project_ids", "project_not_found")
        told.append(message_of(refused.value).replace(other, "it"))
    assert told[0] == told[1]
    tenancy.fine_tuned.names[rival.id] = NAMES  # names are unique, but a permission's id alone must not be enough
    with pytest.raises(openai.NotFoundError):
        await rival.permissions.delete(made.id, fine_tuned_model_checkpoint=FIRST)
    assert [one async for one in rival.permissions.list(FIRST)] == []


@pytest.mark.parametrize(
    "body",
    [{}, {"project_ids": []}, {"project_ids": [""]}, {"project_ids": "p"}, {"project_ids": ["p"], "role": "owner"}],
)
async def test_bodies_that_make_no_sense_are_refused(acme: Organization, body: dict[str, object]) -> None:
    path = f"/v1/fine_tuning/checkpoints/{FIRST}/permissions"
    for asked in (body, {"project_ids": ["p"] * 51}):
        answer = await acme.tenancy.http.post(path, json=asked, headers=bearer(acme.secret))
        assert answer.status_code == 400
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


async def test_who_may_give_permissions(tenancy: Tenancy, acme: Organization) -> None:
    project, bound = await acme.project("small")
    bound_one = Organization(tenancy, acme.id, bound)
    with pytest.raises(openai.PermissionDeniedError):
        await bound_one.permissions.create(FIRST, project_ids=[project])  # nobody gives what it may not use
    scoped = {"scopes": lambda _none: [KeyScope.FINE_TUNING]}
    caller = await tenancy.deaf_process().tenant(acme.secret)
    _, secret = await tenancy.keys.create(acme.id, caller.project, name="k", actor=BOOTSTRAP, rules=scoped)
    with pytest.raises(openai.PermissionDeniedError) as refused:
        await Organization(tenancy, acme.id, secret).permissions.create(FIRST, project_ids=[project])
    assert refused.value.code == "missing_scope"


async def test_those_for_models_that_are_gone_make_room(tenancy: Tenancy, acme: Organization) -> None:
    project, _ = await acme.project("small")
    many = {f"{MODEL}:ckpt-step-{step}": f"{MODEL}:ckpt-step-{step}" for step in range(1, MAX_PERMISSIONS + 2)}
    *first, last = many
    tenancy.fine_tuned.names[acme.id] = many
    for name in first:
        await acme.permissions.create(name, project_ids=[project])
    with pytest.raises(openai.BadRequestError) as full:
        await acme.permissions.create(last, project_ids=[project])
    assert (full.value.param, full.value.code) == ("project_ids", "too_many_permissions")
    del many[first[0]]
    await acme.permissions.create(last, project_ids=[project])
    with pytest.raises(openai.NotFoundError):
        await acme.permissions.list(first[0])


async def test_they_stand_in_the_audit_log(acme: Organization) -> None:
    project, _ = await acme.project("small")
    [made] = (await acme.permissions.create(FIRST, project_ids=[project])).data
    await acme.permissions.delete(made.id, fine_tuned_model_checkpoint=FIRST)
    log = await acme.tenancy.store.audit_log(acme.id, before=None, limit=2)
    assert [one.type for one in log] == ["checkpoint.permission.deleted", "checkpoint.permission.created"]
