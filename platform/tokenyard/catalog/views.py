"""What the catalog's stores return: plain values, never rows."""

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from tokenyard.core.adapters import AdapterRef
from tokenyard.core.ids import AdapterId, JobId, OrganizationId, ProjectId


class AdapterState(StrEnum):
    """The life of an adapter: it is checked on a replica before it goes live, and never comes back from retired."""

    CHECKING = "checking"
    LIVE = "live"
    RETIRED = "retired"


class Adapter(msgspec.Struct, frozen=True):
    """A tenant's fine-tuned model. Times are unix milliseconds."""

    ref: AdapterRef
    organization: OrganizationId
    project: ProjectId
    job: JobId
    base: str
    state: AdapterState
    created_ms: int
    live_ms: int | None = None
    retired_ms: int | None = None
    reason: str | None = None

    @property
    def id(self) -> AdapterId:
        return self.ref.id

    @property
    def name(self) -> str:
        return self.ref.name


class Alias(msgspec.Struct, frozen=True):
    """A name of the organization's own for a model."""

    alias: str
    model: str
    created_ms: int


class OwnModels(msgspec.Struct, frozen=True):
    """All that one organization may call besides the base models, at one revision."""

    revision: int
    adapters: Mapping[str, Adapter]
    aliases: Mapping[str, str]
