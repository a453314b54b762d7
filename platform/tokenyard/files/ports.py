"""What files need from others; `bootstrap` gives the implementations."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from sqlalchemy import Subquery

Json = dict[str, object]

UploadCheck = Callable[[AsyncIterator[bytes]], Awaitable[Json | None]]
"""Returns what is to be kept with a file, or raises `InvalidRequest`, which says what is wrong with it (finetune)."""


@dataclass(frozen=True)
class PurposeRule:
    """What a file of one purpose must be; `what` says so in words."""

    suffix: str
    what: str
    check: UploadCheck


FilesInUse = Callable[[], Subquery]
"""Returns a query of the columns `file` and `job`: files that unfinished jobs need, so they must stay (finetune)."""
