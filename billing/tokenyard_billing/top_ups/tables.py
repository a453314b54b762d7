"""Tables of top-ups. Money is nano-dollars; times are unix milliseconds."""

from sqlalchemy import Integer
from sqlalchemy.orm import Mapped, mapped_column

from tokenyard.storage.columns import Id, Nano, UnixMs
from tokenyard.storage.database import Base


class AutomaticTopUp(Base):
    """An organization buys `amount` whenever less than `threshold` is left, for `month_limit` in a UTC month at most.

    Where there is no row, nothing is bought by itself.
    """

    __tablename__ = "billing_automatic_top_ups"

    organization: Mapped[Id] = mapped_column(primary_key=True)
    bucket: Mapped[int] = mapped_column(Integer)
    threshold: Mapped[Nano]
    amount: Mapped[Nano]
    month_limit: Mapped[Nano]
    changed_at_ms: Mapped[UnixMs]
    retry_at_ms: Mapped[UnixMs] = mapped_column(default=0)
