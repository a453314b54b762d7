"""Tables of the catalog: adapters, aliases and their history, a revision for each organization, model files."""

from enum import StrEnum

import msgspec
from sqlalchemy import ForeignKey, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from tokenyard.storage.columns import Count, Id, UnixMs
from tokenyard.storage.database import Base


class AdapterState(StrEnum):
    """The life of an adapter, which goes one way only. Before it there is a job that trains or takes it in."""

    CHECKING = "checking"  # its files are written, and proven on a replica
    LIVE = "live"
    DRAINING = "draining"  # no new request gets it, but replicas may still hold it
    RETIRED = "retired"  # no replica holds it; its files are kept for a while, and then deleted


ENDED = (AdapterState.DRAINING, AdapterState.RETIRED)


class AdapterRow(Base):
    """One immutable adapter. `name` is what the public and vLLM call it; `path` is its folder in the blob store.

    `checkpoint_of` is the adapter that the one of a checkpoint was on the way to. `last_step` is the step of the
    checkpoint that is a model itself, so that it needs no adapter of its own.
    """

    __tablename__ = "catalog_adapters"
    __table_args__ = (
        Index("ix_catalog_adapters_organization", "organization", "state"),
        Index("ix_catalog_adapters_placing", "base", "state", "live_ms"),
        Index("ix_catalog_adapters_draining", "state", "draining_ms"),
        Index("ix_catalog_adapters_deleting", "state", "files_deleted_ms", "retired_ms"),
        Index("ix_catalog_adapters_hosting", "next_hour_ms"),
        Index("ix_catalog_adapters_pinned", "pinned_ms"),
        Index("ix_catalog_adapters_checkpoints", "checkpoint_of"),
    )

    id: Mapped[Id] = mapped_column(primary_key=True)
    organization: Mapped[Id]
    project: Mapped[Id]
    job: Mapped[Id]
    base: Mapped[str] = mapped_column(String(64))
    name: Mapped[str] = mapped_column(String(255), unique=True)
    path: Mapped[str] = mapped_column(String(255))
    digest: Mapped[str] = mapped_column(String(64))
    key: Mapped[Id]  # of whoever made it
    bytes: Mapped[Count] = mapped_column(default=0)  # of its files; 0 for those from before it was noted
    state: Mapped[str] = mapped_column(String(16))  # AdapterState
    reason: Mapped[str | None] = mapped_column(String(1000))  # why it never went live, or who retired it
    created_ms: Mapped[UnixMs]
    live_ms: Mapped[UnixMs | None]
    draining_ms: Mapped[UnixMs | None]
    retired_ms: Mapped[UnixMs | None]
    files_deleted_ms: Mapped[UnixMs | None]
    # Start of the first hour whose hosting is not on its way to the ledger; None before it is live, and once all is.
    next_hour_ms: Mapped[UnixMs | None]
    pinned_ms: Mapped[UnixMs | None]  # since when replicas keep it in memory
    checkpoint_of: Mapped[Id | None]
    last_step: Mapped[int | None] = mapped_column(Integer)


class AliasRow(Base):
    """A name of the organization's own for a model it may use; `revision` is the one in force."""

    __tablename__ = "catalog_aliases"

    organization: Mapped[Id] = mapped_column(primary_key=True)
    alias: Mapped[str] = mapped_column(String(64), primary_key=True)
    model: Mapped[str] = mapped_column(String(255))
    adapter: Mapped[Id | None] = mapped_column(ForeignKey("catalog_adapters.id"))
    created_ms: Mapped[UnixMs]
    revision: Mapped[int] = mapped_column(Integer)
    changed_ms: Mapped[UnixMs]


class AliasRevisionRow(Base):
    """What an alias stood for from `at_ms` on. `restores` is the earlier revision to which it was rolled back."""

    __tablename__ = "catalog_alias_revisions"

    organization: Mapped[Id] = mapped_column(primary_key=True)
    alias: Mapped[str] = mapped_column(String(64), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    model: Mapped[str] = mapped_column(String(255))
    adapter: Mapped[Id | None] = mapped_column(ForeignKey("catalog_adapters.id"))
    restores: Mapped[int | None] = mapped_column(Integer)
    key: Mapped[Id | None]  # who did it; None for those from before revisions were kept
    at_ms: Mapped[UnixMs]


class ModelFilesRow(Base):
    """A set of model files that was published, whole; the newest is in force. Never updated, never deleted."""

    __tablename__ = "catalog_model_files"

    revision: Mapped[int] = mapped_column(Integer, primary_key=True)
    files: Mapped[str] = mapped_column(Text)  # JSON object of YAML by model, in the order in which models are listed
    sha256: Mapped[str] = mapped_column(String(64))  # of `files`
    published_by: Mapped[Id]
    published_at_ms: Mapped[UnixMs]

    @property
    def by_model(self) -> dict[str, str]:
        return msgspec.json.decode(self.files, type=dict[str, str])


class RevisionRow(Base):
    """Grows with every change of what an organization may call, so that caches need to read one row only."""

    __tablename__ = "catalog_revisions"

    organization: Mapped[Id] = mapped_column(primary_key=True)
    revision: Mapped[Count]
