"""Tables of kept answers."""

from sqlalchemy import Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from tokenyard.storage.columns import Count, Id, Json, UnixMs
from tokenyard.storage.database import Base


class AnswerRow(Base):
    """A response or a chat completion. `content` is encrypted, `size` its bytes, for the quota."""

    __tablename__ = "responses_answers"
    __table_args__ = (
        Index("ix_responses_answers_list", "organization", "project", "kind", "created_at_ms", "id"),
        Index("ix_responses_answers_size", "organization", "size"),
    )

    id: Mapped[Id] = mapped_column(primary_key=True)
    organization: Mapped[Id]
    project: Mapped[Id]
    kind: Mapped[str] = mapped_column(String(16))  # store.AnswerKind
    model: Mapped[str] = mapped_column(String(255))
    state: Mapped[str] = mapped_column(String(16))  # OpenAI's status of a response
    previous: Mapped[Id | None]
    lease_until_ms: Mapped[UnixMs | None] = mapped_column(index=True)  # while it is made in the background
    details: Mapped[Json]  # the client's metadata
    created_at_ms: Mapped[UnixMs] = mapped_column(index=True)
    size: Mapped[Count]
    content: Mapped[bytes] = mapped_column(LargeBinary, deferred=True)
