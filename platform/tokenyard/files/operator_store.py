"""Files of all organizations: for the worker that cleans up."""

from sqlalchemy import and_, or_, select

from tokenyard.core.clock import Clock
from tokenyard.core.ids import FileId, OrganizationId
from tokenyard.files.ports import FilesInUse
from tokenyard.files.store import FileState
from tokenyard.files.tables import FileRow
from tokenyard.storage.database import Database

STALE_UPLOAD_MS = 6 * 3600 * 1000


class FileOperatorStore:
    """Finds files that nobody can see any more."""

    def __init__(self, database: Database, clock: Clock, in_use: FilesInUse) -> None:
        self._database = database
        self._clock = clock
        self._in_use = in_use

    async def leftovers(self, *, limit: int) -> list[tuple[OrganizationId, FileId]]:
        """Return files whose bytes can go: deleted or expired ones, and uploads that never ended."""
        now_ms = self._clock.now_ms()
        statement = (
            select(FileRow.organization, FileRow.id)
            .where(
                or_(
                    FileRow.state == FileState.DELETING,
                    and_(FileRow.state == FileState.UPLOADING, FileRow.created_at_ms < now_ms - STALE_UPLOAD_MS),
                    FileRow.expires_at <= now_ms // 1000,
                ),
                FileRow.id.not_in(select(self._in_use().c.file)),
            )
            .limit(limit)
        )
        async with self._database.reading() as session:
            return [(OrganizationId(owner), FileId(file)) for owner, file in await session.execute(statement)]
