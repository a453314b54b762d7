"""Tables of seals. Nothing in them is ever updated or deleted. Times are unix milliseconds; hashes are hex."""

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from tokenyard.storage.columns import Count, Id, UnixMs
from tokenyard.storage.database import Base

HASH_LENGTH = 64


class Seal(Base):
    """The seal of one UTC day of the installation. Belongs to no organization.

    `root` is the Merkle root over the day's parts in the order of organizations; `previous` is the hash of the day
    before, and empty on the first one. `hash` is that of the statement of all of it.
    """

    __tablename__ = "billing_seals"

    day: Mapped[str] = mapped_column(String(10), primary_key=True)  # YYYY-MM-DD
    previous: Mapped[str] = mapped_column(String(HASH_LENGTH))
    root: Mapped[str] = mapped_column(String(HASH_LENGTH))
    organizations: Mapped[Count]
    hash: Mapped[str] = mapped_column(String(HASH_LENGTH))
    sealed_at_ms: Mapped[UnixMs]


class SealedPart(Base):
    """What an organization's charges and journal transactions of a day come to; there is none of a day without any."""

    __tablename__ = "billing_sealed_parts"

    day: Mapped[str] = mapped_column(String(10), primary_key=True)
    organization: Mapped[Id] = mapped_column(primary_key=True)
    charges: Mapped[Count]
    transactions: Mapped[Count]
    digest: Mapped[str] = mapped_column(String(HASH_LENGTH))
