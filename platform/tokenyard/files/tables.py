"""Tables of files, and of what an organization has stored for how long."""

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from tokenyard.storage.columns import Count, Id, Json, UnixMs, UnixSeconds
from tokenyard.storage.database import Base


class FileRow(Base):
    """An uploaded file; its bytes are the blob `files/<organization>/<id>`. `summary` describes a checked dataset."""

    __tablename__ = "files_objects"
    __table_args__ = (Index("ix_files_objects_list", "organization", "created_at_ms", "id"),)

    id: Mapped[Id] = mapped_column(primary_key=True)
    organization: Mapped[Id]
    project: Mapped[Id]
    filename: Mapped[str] = mapped_column(String(255))
    purpose: Mapped[str] = mapped_column(String(32))
    state: Mapped[str] = mapped_column(String(16), index=True)  # store.FileState
    bytes: Mapped[Count]
    created_at_ms: Mapped[UnixMs]
    expires_at: Mapped[UnixSeconds | None]
    summary: Mapped[Json | None]


class StoredMonthsRow(Base):
    """How much an organization has kept, counted in whole gigabyte-months: `months` of them, and `byte_hours` more.

    `next_hour_ms` is the hour of UTC that is counted next.
    """

    __tablename__ = "files_stored_months"
    __table_args__ = (Index("ix_files_stored_months_due", "next_hour_ms"),)

    organization: Mapped[Id] = mapped_column(primary_key=True)
    byte_hours: Mapped[Count]
    months: Mapped[Count]
    next_hour_ms: Mapped[UnixMs]
