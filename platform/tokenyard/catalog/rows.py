"""Turns rows into views, and counts an organization's revisions."""

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.catalog.tables import AdapterRow, RevisionRow
from tokenyard.catalog.views import Adapter, AdapterState
from tokenyard.core.adapters import AdapterRef
from tokenyard.core.ids import AdapterId, JobId, OrganizationId, ProjectId


def adapter_view(row: AdapterRow) -> Adapter:
    return Adapter(
        ref=AdapterRef(id=AdapterId(row.id), name=row.name, path=row.path, digest=row.digest),
        organization=OrganizationId(row.organization),
        project=ProjectId(row.project),
        job=JobId(row.job),
        base=row.base,
        state=AdapterState(row.state),
        created_ms=row.created_ms,
        live_ms=row.live_ms,
        retired_ms=row.retired_ms,
        reason=row.reason,
    )


async def bump_revision(session: AsyncSession, organization: OrganizationId, *, is_sqlite: bool) -> None:
    """Tell caches, in the transaction of the change itself, that what the organization may call has changed."""
    insert = (sqlite.insert if is_sqlite else postgresql.insert)(RevisionRow)
    await session.execute(
        insert.values(organization=organization, revision=1).on_conflict_do_update(
            index_elements=[RevisionRow.organization], set_={"revision": RevisionRow.revision + 1}
        )
    )
