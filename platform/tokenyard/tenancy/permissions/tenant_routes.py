"""`/v1/fine_tuning/checkpoints/{checkpoint}/permissions`, as OpenAI's API has it (ADR 46).

OpenAI wants an organization's admin key; here that is a key that is for everything.
"""

from typing import Annotated, Literal

from fastapi import APIRouter, Query

from tokenyard.core.errors import ModelNotFound
from tokenyard.core.principal import Principal
from tokenyard.tenancy.permissions.store import PermissionStore
from tokenyard.tenancy.permissions.views import CheckpointPermission, CheckpointPermissionDeleted, NewPermissions
from tokenyard.tenancy.ports import FineTunes
from tokenyard.tenancy.push import TenancyPush
from tokenyard.web.auth import CurrentTenant, FreshTenant
from tokenyard.web.pages import After, Page, PageSize


def permission_router(permissions: PermissionStore, models: FineTunes, push: TenancyPush) -> APIRouter:
    routes = APIRouter(prefix="/v1/fine_tuning/checkpoints/{checkpoint:path}/permissions", tags=["fine-tuning"])

    async def own(tenant: Principal, checkpoint: str) -> tuple[str, frozenset[str]]:
        """Return the proper name of the caller's own checkpoint or model, and those of all of them."""
        found = await models.fine_tunes(tenant.organization)
        if checkpoint not in found:
            message = f"The model `{checkpoint[:256]}` does not exist or you do not have access to it."
            raise ModelNotFound(message, param="fine_tuned_model_checkpoint")
        return found[checkpoint], frozenset(found.values())

    @routes.post("")
    async def create(tenant: FreshTenant, checkpoint: str, body: NewPermissions) -> Page[CheckpointPermission]:
        """Let projects of the organization use a checkpoint, or a model, which the lists of their models lack."""
        model, live = await own(tenant, checkpoint)
        tenant.check_model(model)  # nobody gives what it may not use
        found, messages = await permissions.permit(
            tenant.organization, model, body.project_ids, actor=tenant.key, live=live
        )
        await push.changed(messages)
        return Page[CheckpointPermission].of(found, len(found))

    @routes.get("")
    async def listing(
        tenant: CurrentTenant,
        checkpoint: str,
        *,
        project_id: Annotated[str | None, Query(max_length=96)] = None,
        after: After = None,
        limit: PageSize = 10,
        order: Literal["ascending", "descending"] = "descending",
    ) -> Page[CheckpointPermission]:
        model, _ = await own(tenant, checkpoint)
        found = await permissions.page(
            tenant.organization,
            model,
            project=project_id,
            after=after or None,
            limit=limit + 1,
            newest_first=order == "descending",
        )
        return Page[CheckpointPermission].of(found, limit)

    @routes.delete("/{permission}")
    async def end(tenant: FreshTenant, checkpoint: str, permission: str) -> CheckpointPermissionDeleted:
        """Take a permission back, in force everywhere within a second."""
        model, _ = await own(tenant, checkpoint)
        await push.changed(await permissions.end(tenant.organization, model, permission, actor=tenant.key))
        return CheckpointPermissionDeleted(id=permission)

    return routes
