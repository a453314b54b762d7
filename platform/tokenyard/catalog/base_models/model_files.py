"""Keeps a process's base models as the published model files have them, and serves on from memory while SQL is down."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from typing import Self

from redis.asyncio import Redis
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.catalog.base_models.base_models import BaseModels
from tokenyard.catalog.tables import ModelFilesRow
from tokenyard.core.model_files.reading import read_model_spec
from tokenyard.core.models import InvalidModelSpec, ModelSpec
from tokenyard.storage import change_feed
from tokenyard.storage.change_feed import PublishedReader
from tokenyard.storage.database import Database

_LOG = logging.getLogger(__name__)

TOPIC = "model_files"
"""The outbox's topic of a published set, and the change feed's kind."""
RELOAD_S = 30.0


def read_specs(files: Iterable[str]) -> list[ModelSpec]:
    """Read a set of files; one that is wrong raises `InvalidModelSpec`."""
    return [read_model_spec(text.encode()) for text in files]


async def newest_set(session: AsyncSession) -> ModelFilesRow | None:
    return await session.scalar(select(ModelFilesRow).order_by(ModelFilesRow.revision.desc()).limit(1))


class ModelFiles:
    """Used as `async with`: reads the set in force, then follows what is published.

    Where none was ever published, the files of the installation itself hold.
    """

    def __init__(self, database: Database, bases: BaseModels, own_files: Callable[[], Sequence[ModelSpec]]) -> None:
        """Take `own_files`, which reads the installation's files and raises `InvalidModelSpec`."""
        self._database = database
        self._bases = bases
        self._own_files = own_files
        self._revision = 0
        self._reader = PublishedReader(TOPIC, self._read, lambda: RELOAD_S)
        self.listeners = self._reader.listeners

    async def __aenter__(self) -> Self:
        """Read the models.

        Raises:
            InvalidModelSpec: no set was published, or SQL is down, and the installation's own files are not right.
        """
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._reader)
            if not self._revision:
                self._bases.replace(await asyncio.to_thread(self._own_files))
            stack.pop_all()
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._reader.__aexit__(*raised)

    async def _read(self) -> None:
        async with self._database.reading() as session:
            row = await newest_set(session)
        if row is None or row.revision == self._revision:
            return
        try:
            await asyncio.to_thread(lambda: self._bases.replace(read_specs(row.by_model.values())))
        except InvalidModelSpec as error:  # published by a version that knows more than this one
            _LOG.error("revision %d of the model files cannot be used here: %s", row.revision, error)
        else:
            _LOG.info("revision %d of the model files is in force", row.revision)
        self._revision = row.revision


def model_file_carrier(redis: Redis) -> Callable[[Sequence[str]], Awaitable[None]]:
    """Return the outbox's handler: it tells every process that a set was published."""

    async def carry(payloads: Sequence[str]) -> None:
        await change_feed.publish(redis, TOPIC, max(payloads, key=int))

    return carry
