"""Tables of evals, their runs, and what came of each row."""

from sqlalchemy import Index, Integer, LargeBinary, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from tokenyard.storage.columns import Count, Id, Json, UnixMs
from tokenyard.storage.database import Base


class EvalRow(Base):
    """An eval. `content`, an `evals.content.EvalContent`, is encrypted; `size`, for the quota, are its bytes and those
    of name and details.
    """

    __tablename__ = "evals_evals"
    __table_args__ = (
        Index("ix_evals_evals_created", "organization", "project", "created_at_ms", "id"),
        Index("ix_evals_evals_updated", "organization", "project", "updated_at_ms", "id"),
    )

    id: Mapped[Id] = mapped_column(primary_key=True)
    organization: Mapped[Id]
    project: Mapped[Id]
    name: Mapped[str] = mapped_column(String(255))
    details: Mapped[Json]  # the client's metadata
    created_at_ms: Mapped[UnixMs]
    updated_at_ms: Mapped[UnixMs]
    size: Mapped[Count]
    content: Mapped[bytes] = mapped_column(LargeBinary)


class EvalRunRow(Base):
    """A run: `state` is a `runs.run.EvalRunState`, `tally` a `RunTally`, `error` a `RunError`, and the encrypted
    `content` a `RunContent`.

    `lease_until_ms` is also when a worker looks at it next. `total` is None until its rows are written; no row of a
    run is there before all are.
    """

    __tablename__ = "evals_runs"
    __table_args__ = (
        Index("ix_evals_runs_list", "eval", "created_at_ms", "id"),
        Index("ix_evals_runs_due", "state", "lease_until_ms"),
        Index("ix_evals_runs_organization", "organization", "state"),
        Index("ix_evals_runs_created_at_ms", "created_at_ms"),
    )

    id: Mapped[Id] = mapped_column(primary_key=True)
    eval: Mapped[Id]
    organization: Mapped[Id]
    project: Mapped[Id]
    key: Mapped[Id]
    name: Mapped[str] = mapped_column(String(255))
    details: Mapped[Json]  # the client's metadata
    model: Mapped[str] = mapped_column(String(255))
    state: Mapped[str] = mapped_column(String(16))
    created_at_ms: Mapped[UnixMs]
    deadline_ms: Mapped[UnixMs | None]
    total: Mapped[int | None] = mapped_column(Integer)
    tally: Mapped[Json]
    error: Mapped[Json | None]
    lease_owner: Mapped[str | None] = mapped_column(String(64))
    lease_until_ms: Mapped[UnixMs]
    size: Mapped[Count]
    content: Mapped[bytes] = mapped_column(LargeBinary)


class EvalItemRow(Base):
    """A row of a run, and what came of it: `state` is a `runs.run.ItemState`, the encrypted `content` an `Item`."""

    __tablename__ = "evals_items"
    __table_args__ = (
        UniqueConstraint("run", "number"),
        Index("ix_evals_items_size", "organization", "size"),
    )

    id: Mapped[Id] = mapped_column(primary_key=True)
    organization: Mapped[Id]
    run: Mapped[Id]
    number: Mapped[int] = mapped_column(Integer)
    state: Mapped[str] = mapped_column(String(8))
    created_at_ms: Mapped[UnixMs]
    size: Mapped[Count]
    content: Mapped[bytes] = mapped_column(LargeBinary)
