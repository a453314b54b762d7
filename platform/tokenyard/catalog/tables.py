"""Tables of the catalog: adapters, aliases, and a revision for each organization. Base models are files."""

from enum import StrEnum

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from tokenyard.storage.columns import Count, Id, UnixMs
from tokenyard.storage.database import Base


class AdapterState(StrEnum):
    """The life of an adapter: it is checked on a replica before it goes live, and never comes back from retired."""

    CHECKING = "checking"
    LIVE = "live"
    RETIRED = "retired"


class AdapterRow(Base):
    """One immutable adapter. `name` is what the public and vLLM call it; `path` is its folder in the blob store."""

    __tablename__ = "catalog_adapters"
    __table_args__ = (
        Index("ix_catalog_adapters_organization", "organization", "state"),
        Index("ix_catalog_adapters_placing", "base", "state", "live_ms"),
        Index("ix_catalog_adapters_deleting", "state", "files_deleted_ms", "retired_ms"),
    )

    id: Mapped[Id] = mapped_column(primary_key=True)
    organization: Mapped[Id]
    project: Mapped[Id]
    job: Mapped[Id]
    base: Mapped[str] = mapped_column(String(64))
    name: Mapped[str] = mapped_column(String(255), unique=True)
    path: Mapped[str] = mapped_column(String(255))
    digest: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16))  # AdapterState
    reason: Mapped[str | None] = mapped_column(String(1000))  # why it never went live, or who retired it
    created_ms: Mapped[UnixMs]
    live_ms: Mapped[UnixMs | None]
    retired_ms: Mapped[UnixMs | None]
    files_deleted_ms: Mapped[UnixMs | None]


class AliasRow(Base):
    """A name of the organization's own for a model it may use."""

    __tablename__ = "catalog_aliases"

    organization: Mapped[Id] = mapped_column(primary_key=True)
    alias: Mapped[str] = mapped_column(String(64), primary_key=True)
    model: Mapped[str] = mapped_column(String(255))
    adapter: Mapped[Id | None] = mapped_column(ForeignKey("catalog_adapters.id"))
    created_ms: Mapped[UnixMs]


class RevisionRow(Base):
    """Grows with every change of what an organization may call, so that caches need to read one row only."""

    __tablename__ = "catalog_revisions"

    organization: Mapped[Id] = mapped_column(primary_key=True)
    revision: Mapped[Count]
