"""Makes seals anew from what stands in SQL, and names what differs."""

from collections.abc import AsyncIterator, Sequence
from typing import Literal

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard_billing.sealing.canonical import seal_hash
from tokenyard_billing.sealing.days import day_after
from tokenyard_billing.sealing.lines import DayDigest, digest_of, parts_of, sealed_parts
from tokenyard_billing.sealing.merkle import merkle_root
from tokenyard_billing.sealing.owners import first_day, owners_behind
from tokenyard_billing.sealing.tables import Seal

BrokenSeal = Literal["seal_chain_broken", "seal_not_parts", "seal_not_rows"]


class SealDifference(msgspec.Struct, frozen=True):
    """A seal does not follow from the one before it, or from its parts, or a part not from an organization's rows."""

    name: BrokenSeal
    day: str
    detail: str
    organization: str | None = None

    @property
    def subject(self) -> str:
        return self.day if self.organization is None else f"{self.day}/{self.organization}"


class StoredSeal(msgspec.Struct, frozen=True):
    day: str
    previous: str
    root: str
    organizations: int
    hash: str

    def follows(self, before: "StoredSeal | None") -> SealDifference | None:
        """Return what is wrong with its place in the chain."""
        stated = seal_hash(self.day, previous=self.previous, root=self.root, organizations=self.organizations)
        if stated != self.hash:
            return self._broken(f"its statement has the hash {stated}, and it says {self.hash}")
        if before is None:
            return self._broken("there is no seal of the day before") if self.previous else None
        if self.day != day_after(before.day):
            return self._broken(f"the seal before it is of {before.day}")
        if self.previous != before.hash:
            return self._broken(f"the seal of {before.day} is {before.hash}, and it names {self.previous or 'none'}")
        return None

    def _broken(self, detail: str) -> SealDifference:
        return SealDifference("seal_chain_broken", self.day, detail)


_COLUMNS = Seal.day, Seal.previous, Seal.root, Seal.organizations, Seal.hash


async def stored_seals(session: AsyncSession, first: str = "", last: str = "9") -> AsyncIterator[StoredSeal]:
    """Yield the seals of the days from `first` to `last`, in order."""
    query = select(*_COLUMNS).where(Seal.day >= first, Seal.day <= last).order_by(Seal.day)
    async for part in parts_of(session, query):
        for row in part:
            yield StoredSeal(*row)


async def seal_before(session: AsyncSession, day: str) -> StoredSeal | None:
    """Return the last seal before `day`."""
    query = select(*_COLUMNS).where(Seal.day < day).order_by(Seal.day.desc()).limit(1)
    row = (await session.execute(query)).one_or_none()
    return None if row is None else StoredSeal(*row)


def not_of_parts(seal: StoredSeal, parts: Sequence[DayDigest]) -> SealDifference | None:
    """Return what is wrong where a seal is not that of the stored parts of its day."""
    root = merkle_root([part.leaf for part in parts]).hex()
    if (root, len(parts)) == (seal.root, seal.organizations):
        return None
    detail = f"{len(parts)} parts have the root {root}, the seal is of {seal.organizations} with {seal.root}"
    return SealDifference("seal_not_parts", seal.day, detail)


async def not_of_rows(session: AsyncSession, day: str, part: DayDigest) -> SealDifference | None:
    """Return what is wrong where an organization's rows of a day are not what was sealed."""
    found = await digest_of(session, day, part.organization)
    if found == part:
        return None
    counts = f"charges: sealed {part.charges}, found {found.charges}"
    counts += f"; transactions: sealed {part.transactions}, found {found.transactions}"
    detail = f"{counts}; digest: sealed {part.digest}, found {found.digest}"
    return SealDifference("seal_not_rows", day, detail, part.organization)


async def unsealed(session: AsyncSession, day: str, sealed: frozenset[str]) -> AsyncIterator[SealDifference]:
    """Yield the organizations that have rows of a sealed day, and no part in its seal."""
    after = ""
    while owners := await owners_behind(session, day, after):
        for owner in owners:
            if owner.recorded and owner.organization not in sealed:
                detail = "it has charges or transactions of this day, and nothing of it was sealed"
                yield SealDifference("seal_not_rows", day, detail, owner.organization)
        after = owners[-1].organization


async def before_chain(session: AsyncSession, first: StoredSeal) -> SealDifference | None:
    """Return what is wrong where something was recorded before the day of the first seal."""
    day = await first_day(session)
    if day is None or day >= first.day:
        return None
    detail = f"there are charges or transactions of this day, and the first seal is of {first.day}"
    return SealDifference("seal_not_rows", day, detail)


async def first_difference(session: AsyncSession, seal: StoredSeal) -> tuple[int, SealDifference | None]:
    """Make a day anew; return how many rows that read, and the first organization that differs.

    With the first day of the chain, all that is older is looked for, too.
    """
    parts = await sealed_parts(session, seal.day)
    rows = sum(part.charges + part.transactions for part in parts)
    if not seal.previous and (older := await before_chain(session, seal)) is not None:
        return rows, older
    for part in parts:
        if (found := await not_of_rows(session, seal.day, part)) is not None:
            return rows, found
    sealed = frozenset(part.organization for part in parts)
    async for found in unsealed(session, seal.day, sealed):
        return rows, found
    return rows, not_of_parts(seal, parts)
