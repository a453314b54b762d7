"""Tables of dunning. Times are unix milliseconds; every row belongs to one organization."""

from sqlalchemy import Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from tokenyard.storage.columns import Id, UnixMs
from tokenyard.storage.database import Base


class Dunning(Base):
    """How far an overdue invoice has come: `steps` of the schedule were taken, the last at `stepped_at_ms`.

    `blocks` says that it keeps its organization blocked.
    """

    __tablename__ = "billing_dunning"
    __table_args__ = (Index("billing_dunning_organization", "organization"),)

    invoice: Mapped[Id] = mapped_column(primary_key=True)
    organization: Mapped[Id]
    bucket: Mapped[int] = mapped_column(Integer)
    steps: Mapped[int] = mapped_column(Integer)
    stepped_at_ms: Mapped[UnixMs]
    blocks: Mapped[bool]
    retry_at_ms: Mapped[UnixMs] = mapped_column(default=0)


class DunningException(Base):
    """What an operator stated of an organization: none of its invoices is dunned, or none before `paused_until_ms`."""

    __tablename__ = "billing_dunning_exceptions"

    organization: Mapped[Id] = mapped_column(primary_key=True)
    exempt: Mapped[bool]
    paused_until_ms: Mapped[UnixMs]  # 0: not paused
    reason: Mapped[str] = mapped_column(Text)
    actor: Mapped[str] = mapped_column(String(96))
    changed_at_ms: Mapped[UnixMs]
