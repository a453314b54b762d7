"""What files need from others; `bootstrap` gives the implementations."""

from collections.abc import AsyncIterator, Awaitable, Callable

from sqlalchemy import Subquery

Json = dict[str, object]

UploadCheck = Callable[[AsyncIterator[bytes]], Awaitable[Json]]
"""Returns the figures to keep with a training file, or raises `InvalidRequest`, naming wrong lines (finetune)."""

FilesInUse = Callable[[], Subquery]
"""Returns a query of the columns `file` and `job`: files that unfinished jobs need, so they must stay (finetune)."""
