"""What the dashboard needs from others."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from tokenyard.core.ids import ApiKeyId, OrganizationId


class OrganizationNames(Protocol):
    """What organizations are called."""

    async def names(self) -> dict[OrganizationId, tuple[str, str]]:
        """Return name and slug of every organization."""
        ...


class JobRow(msgspec.Struct, frozen=True):
    """One fine-tuning job as the pages show it; times are unix seconds."""

    id: str
    organization: OrganizationId
    model: str
    status: str
    fine_tuned_model: str | None
    trained_tokens: int | None
    created_at: int
    finished_at: int | None
    error: str | None


class Jobs(Protocol):
    """Fine-tuning jobs, newest first."""

    async def recent(self, organization: OrganizationId | None, limit: int) -> Sequence[JobRow]:
        """Return the newest jobs of one organization, or of all."""
        ...


class OperatorKeys(Protocol):
    """Whether a logged-in operator's key still counts."""

    async def is_active(self, key: ApiKeyId) -> bool:
        """Tell whether `key` is an operator key that is neither revoked nor expired."""
        ...
