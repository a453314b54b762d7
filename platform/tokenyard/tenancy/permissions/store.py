"""Permissions of one organization's projects to use its fine-tuned models: kept, and read with every key."""

from collections.abc import Container, Sequence

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.clock import Clock
from tokenyard.core.errors import InvalidRequest, NotFound
from tokenyard.core.ids import ApiKeyId, OrganizationId, random_text
from tokenyard.storage.database import Database
from tokenyard.storage.paging import part_of_list
from tokenyard.storage.transactional_outbox import OutboxMessage
from tokenyard.tenancy.permissions.views import CheckpointPermission
from tokenyard.tenancy.store import bump_revision, record
from tokenyard.tenancy.tables import CheckpointPermissionRow, OrganizationRow, ProjectRow

MAX_PERMISSIONS = 100
"""Of one project: each is one more name that its requests may be compared with."""


class PermissionStore:
    """Every method sees one organization's rows. What changes them returns what is to be carried."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def page(
        self,
        organization: OrganizationId,
        model: str,
        *,
        project: str | None,
        after: str | None,
        limit: int,
        newest_first: bool,
    ) -> list[CheckpointPermission]:
        """Return up to `limit` permissions for a model behind `after`, an unknown one of which raises `InvalidRequest`.

        Where `project` is given, only that of this project.
        """
        query = select(CheckpointPermissionRow).where(
            CheckpointPermissionRow.organization_id == organization, CheckpointPermissionRow.model == model
        )
        place = CheckpointPermissionRow.created_at, CheckpointPermissionRow.id
        if project is not None:
            query = query.where(CheckpointPermissionRow.project_id == project)
        async with self._database.reading() as session:
            last = None
            if after is not None:
                last = await session.scalar(query.where(CheckpointPermissionRow.id == after))
                if last is None:
                    raise InvalidRequest(f"No such permission: `{after[:64]}`.", param="after")
            part = part_of_list(query, *place, after=last, limit=limit, newest_first=newest_first)
            return [CheckpointPermission.model_validate(row) for row in await session.scalars(part)]

    async def permit(
        self,
        organization: OrganizationId,
        model: str,
        projects: Sequence[str],
        *,
        actor: ApiKeyId,
        live: Container[str],
    ) -> tuple[list[CheckpointPermission], list[OutboxMessage]]:
        """Let projects use a model; one that may already keeps its permission.

        Permissions of theirs for models that are not `live` are forgotten. `InvalidRequest` is raised, and nothing
        changed, where the organization has no such project in use, or one has too many.
        """
        now_ms = self._clock.now_ms()
        async with self._database.transaction() as session:
            # Those that are made at the same moment must each count the others.
            await session.execute(
                select(OrganizationRow.id).where(OrganizationRow.id == organization).with_for_update()
            )
            found, fresh = [], False
            for project in dict.fromkeys(projects):
                await _check_project(session, organization, project)
                row = await _permission(session, project, model)
                if row is None:
                    await _make_room(session, project, live)
                    row = _new(organization, project, model, now_ms // 1000)
                    session.add(row)
                    fresh = True
                    details: dict[str, object] = {"model": model, "project": project}
                    action = "checkpoint.permission.created"
                    record(session, organization, actor, action, row.id, at=now_ms // 1000, details=details)
                found.append(CheckpointPermission.model_validate(row))
            return found, [await bump_revision(session, organization, now_ms)] if fresh else []

    async def end(
        self, organization: OrganizationId, model: str, permission: str, *, actor: ApiKeyId
    ) -> list[OutboxMessage]:
        """Take a permission back; one that the organization has not given for the model raises `NotFound`."""
        now_ms = self._clock.now_ms()
        async with self._database.transaction() as session:
            row = await session.get(CheckpointPermissionRow, permission, with_for_update=True)
            if row is None or row.organization_id != organization or row.model != model:
                raise NotFound(f"No such permission: `{permission[:64]}`.")
            before: dict[str, object] = {"model": model, "project": row.project_id}
            await session.delete(row)
            action = "checkpoint.permission.deleted"
            record(session, organization, actor, action, permission, at=now_ms // 1000, before=before)
            return [await bump_revision(session, organization, now_ms)]


async def permitted_models(session: AsyncSession, project: str | None) -> Sequence[str]:
    """Return the fine-tuned models that a project may use whatever its own list says."""
    query = select(CheckpointPermissionRow.model).where(CheckpointPermissionRow.project_id == project)
    return (await session.scalars(query.order_by(CheckpointPermissionRow.model))).all()


async def _check_project(session: AsyncSession, organization: OrganizationId, project: str) -> None:
    in_use = ProjectRow.organization_id == organization, ProjectRow.archived_at.is_(None)
    if await session.scalar(select(ProjectRow.id).where(ProjectRow.id == project, *in_use)) is None:
        raise InvalidRequest(f"No such project: `{project}`.", param="project_ids", code="project_not_found")


async def _permission(session: AsyncSession, project: str, model: str) -> CheckpointPermissionRow | None:
    return await session.scalar(
        select(CheckpointPermissionRow).where(
            CheckpointPermissionRow.project_id == project, CheckpointPermissionRow.model == model
        )
    )


async def _make_room(session: AsyncSession, project: str, live: Container[str]) -> None:
    gone = [model for model in await permitted_models(session, project) if model not in live]
    of_project = CheckpointPermissionRow.project_id == project
    await session.execute(delete(CheckpointPermissionRow).where(of_project, CheckpointPermissionRow.model.in_(gone)))
    held = await session.scalar(select(func.count()).select_from(CheckpointPermissionRow).where(of_project))
    if (held or 0) >= MAX_PERMISSIONS:
        message = f"The project `{project}` has {MAX_PERMISSIONS} permissions, which is the limit."
        raise InvalidRequest(message, param="project_ids", code="too_many_permissions")


def _new(organization: OrganizationId, project: str, model: str, now: int) -> CheckpointPermissionRow:
    return CheckpointPermissionRow(
        id=f"cp_{random_text()}", organization_id=organization, project_id=project, model=model, created_at=now
    )
