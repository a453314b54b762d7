"""Publishes model files: all that are served, as one set, into SQL, from where every process takes the newest."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.catalog.base_models.base_models import BaseModels, load_specs
from tokenyard.catalog.base_models.model_files import TOPIC, newest_set, read_specs
from tokenyard.catalog.tables import ModelFilesRow
from tokenyard.core.clock import Clock
from tokenyard.core.ids import ApiKeyId
from tokenyard.core.models import BaseModel
from tokenyard.storage.database import AuditLog, Database, advisory_lock
from tokenyard.storage.transactional_outbox import OutboxMessage, write_message

IMPORTER = ApiKeyId("import")
"""The actor of what an installation publishes as it starts."""
MAX_MODELS = 256
MAX_FILE_CHARS = 256 * 1024

Check = Callable[[Sequence[BaseModel]], object]
"""Raises `InvalidModelSpec` for models that this installation cannot serve, whatever their files say."""


class ModelFileOperatorStore:
    """The published sets, of which the newest is in force. None is ever changed."""

    def __init__(
        self, database: Database, clock: Clock, audit: AuditLog, models_folder: Path, check: Check = len
    ) -> None:
        self._database = database
        self._clock = clock
        self._audit = audit
        self._models_folder = models_folder
        self._check = check

    async def current(self) -> ModelFilesRow | None:
        """Return the set in force; None where none was published yet."""
        async with self._database.reading() as session:
            return await newest_set(session)

    def check(self, files: Sequence[str]) -> list[str]:
        """Return the ids of the models; raise `InvalidModelSpec` where a file is not right, or they do not fit."""
        models = BaseModels(read_specs(files), self._models_folder).all()
        self._check(models)
        return [model.id for model in models]

    async def publish(self, files: Sequence[str], *, actor: ApiKeyId) -> tuple[ModelFilesRow, list[OutboxMessage]]:
        """Put a set in force, in the order in which models are listed; the one that is in force already stays.

        Raises:
            InvalidModelSpec: a file is not right, or they do not fit together; nothing has changed.
        """
        content = json.dumps(dict(zip(self.check(files), files, strict=True)))
        sha256 = hashlib.sha256(content.encode()).hexdigest()
        now_ms = self._clock.now_ms()
        async with self._database.transaction() as session:
            await advisory_lock(session, "catalog model files")
            before = await newest_set(session)
            if before is not None and before.sha256 == sha256:
                return before, []
            row = ModelFilesRow(files=content, sha256=sha256, published_by=actor, published_at_ms=now_ms)
            session.add(row)
            await session.flush()
            earlier = {} if before is None else _hashes(before.by_model)
            self._note(session, row, earlier)
            return row, [await write_message(session, TOPIC, msgspec.json.encode(row.revision), now_ms)]

    def _note(self, session: AsyncSession, row: ModelFilesRow, before: Mapping[str, object]) -> None:
        self._audit(
            session,
            None,
            ApiKeyId(row.published_by),
            "model_files.published",
            str(row.revision),
            at=row.published_at_ms // 1000,
            details={"models": _hashes(row.by_model)},
            before={"models": before} if before else {},
        )


def read_files(models: Sequence[str], folder: Path) -> list[str]:
    """Return the text of `<folder>/<model>.yaml` for each; one that is missing or wrong raises `InvalidModelSpec`."""
    load_specs(models, folder)
    return [(folder / f"{model}.yaml").read_text() for model in models]


def _hashes(files: Mapping[str, str]) -> dict[str, object]:
    """Return for each model the SHA-256 of its file."""
    return {model: hashlib.sha256(text.encode()).hexdigest() for model, text in files.items()}
