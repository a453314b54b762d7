"""What files need from others; `bootstrap` gives the implementations."""

from collections.abc import AsyncIterator
from typing import Protocol

from sqlalchemy import Subquery

Json = dict[str, object]


class UploadCheck(Protocol):
    """Checks what is uploaded for fine-tuning (finetune)."""

    async def __call__(self, chunks: AsyncIterator[bytes]) -> Json:
        """Return the figures to keep with a training file.

        Raises:
            InvalidRequest: it is none, naming the lines that are wrong.
        """
        ...


class FilesInUse(Protocol):
    """Which files must stay (finetune)."""

    def __call__(self) -> Subquery:
        """Return a query of the columns `file` and `job`: each file that an unfinished job needs."""
        ...
