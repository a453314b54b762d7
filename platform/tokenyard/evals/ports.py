"""What evals need from others; `bootstrap` gives the implementations."""

from typing import Protocol

from tokenyard.core.evaluation.questions import Answered, Question
from tokenyard.core.ids import ApiKeyId, FileId, OrganizationId

Json = dict[str, object]


class RowsFile(Protocol):
    @property
    def purpose(self) -> str: ...

    @property
    def bytes(self) -> int: ...


class RowsFiles(Protocol):
    """Uploaded files (files)."""

    async def get(self, organization: OrganizationId, file: FileId) -> RowsFile:
        """Return a file or raise `NotFound`."""
        ...

    def path(self, organization: OrganizationId, file: FileId) -> str: ...


class EvalAnswers(Protocol):
    """Asks models as tenants do, in the name of a key (clients)."""

    async def ask(
        self, question: Question, *, model: str, key: ApiKeyId, idempotency_key: str, max_tokens: int
    ) -> Answered:
        """Return a model's answer; again under its idempotency key, the same one, charged once.

        Raises `NotAnswered`.
        """
        ...
