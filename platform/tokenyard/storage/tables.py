"""Tables of the kernel."""

from sqlalchemy import BigInteger, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from tokenyard.storage.columns import UnixMs
from tokenyard.storage.database import Base


class OutboxRow(Base):
    """One message. `due_at_ms`: when the loop may take it. `carried_to`: the run of Redis that has it, None before."""

    __tablename__ = "storage_outbox"

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer(), "sqlite"), primary_key=True)
    topic: Mapped[str] = mapped_column(String(32))
    payload: Mapped[str] = mapped_column(Text)
    failures: Mapped[int] = mapped_column(Integer, default=0)
    due_at_ms: Mapped[UnixMs] = mapped_column(index=True)
    carried_to: Mapped[str | None] = mapped_column(String(40))
    carried_at_ms: Mapped[UnixMs | None]
