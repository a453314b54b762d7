"""The API's shapes of the catalog. `GET /v1/models` lists exactly OpenAI's fields; one model tells more."""

from typing import Annotated, Literal, Self

import msgspec
from pydantic import BaseModel, Field

from tokenyard.catalog.tables import AdapterRow, AdapterState, AliasRevisionRow, AliasRow
from tokenyard.core.ids import AdapterId, ApiKeyId, JobId, OrganizationId, PriceId, ProjectId
from tokenyard.core.models import BaseModel as ServedModel
from tokenyard.core.models import ModelTask
from tokenyard.core.money import Price
from tokenyard.web.pages import Identified


class ModelListItem(Identified):
    """OpenAI's model."""

    object: Literal["model"] = "model"
    created: int
    owned_by: str


class ModelList(BaseModel):
    """OpenAI's list of models, which has no pages; whether there are more is told where a `limit` was asked for."""

    object: Literal["list"] = "list"
    data: list[ModelListItem]
    has_more: bool | None = None


class SamplingView(BaseModel):
    """What requests are sampled with where they say nothing; what is absent is left to the engine."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None


class ModelDetails(ModelListItem):
    """OpenAI's model with what it is for. What does not hold for it is absent: its default sampling where its file
    states none, and the lengths of its vectors where it makes no embeddings.
    """

    task: ModelTask
    context_length: int
    dimensions: list[int] | None = None
    sampling: SamplingView | None = None

    @classmethod
    def of(cls, name: str, base: ServedModel, *, created: int, owner: str) -> Self:
        stated = msgspec.to_builtins(base.sampling)
        return cls(
            id=name,
            created=created,
            owned_by=owner,
            task=base.task,
            context_length=base.context_length,
            dimensions=list(base.dimensions) or None,
            sampling=SamplingView(**stated) if stated else None,
        )


class ModelDeleted(Identified):
    """OpenAI's answer to the end of a fine-tuned model."""

    object: Literal["model"] = "model"
    deleted: bool = True


class NewAlias(BaseModel, extra="forbid", strict=True):
    """`POST /v1/model_aliases`."""

    alias: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    model: Annotated[str, Field(min_length=1, max_length=255)]


class AliasChange(BaseModel, extra="forbid", strict=True):
    """`POST /v1/model_aliases/{alias}`: another model, or an earlier revision by its number or as "previous"."""

    model: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    revision: Annotated[int, Field(ge=1, le=2**31 - 1)] | Literal["previous"] | None = None


class AliasView(Identified):
    """A name of the organization's own for a model; `revision` grows each time that it is moved."""

    object: Literal["model_alias"] = "model_alias"
    model: str
    revision: int
    created_at: int
    changed_at: int

    @classmethod
    def of(cls, row: AliasRow) -> Self:
        return cls(
            id=row.alias,
            model=row.model,
            revision=row.revision,
            created_at=row.created_ms // 1000,
            changed_at=row.changed_ms // 1000,
        )


class AliasRevisionView(Identified):
    """What an alias stood for from `created_at` on. `restores` is the revision that was brought back, if one was."""

    object: Literal["model_alias.revision"] = "model_alias.revision"
    revision: int
    model: str
    restores: int | None
    created_at: int
    api_key_id: ApiKeyId | None

    @classmethod
    def of(cls, row: AliasRevisionRow) -> Self:
        return cls(
            id=str(row.number),
            revision=row.number,
            model=row.model,
            restores=row.restores,
            created_at=row.at_ms // 1000,
            api_key_id=None if row.key is None else ApiKeyId(row.key),
        )


class AliasDeleted(Identified):
    """The alias is forgotten; what it named goes on."""

    object: Literal["model_alias"] = "model_alias"
    deleted: bool = True


class BaseModelView(Identified):
    """A base model as operators see it, with how many adapters stand on it in each state."""

    object: Literal["model"] = "model"
    created: int
    task: ModelTask
    context_length: int
    dimensions: list[int]
    default_max_tokens: int
    max_lora_rank: int
    price_id: PriceId | None
    callable: bool
    adapters: dict[AdapterState, int]

    @classmethod
    def of(cls, base: ServedModel, price: Price | None, adapters: dict[AdapterState, int]) -> Self:
        return cls(
            id=base.id,
            created=base.created,
            task=base.task,
            context_length=base.context_length,
            dimensions=list(base.dimensions),
            default_max_tokens=base.default_max_tokens,
            max_lora_rank=base.max_lora_rank,
            price_id=None if price is None else price.id,
            callable=price is not None,
            adapters=adapters,
        )


class AdapterView(Identified):
    """An adapter as operators see it; `pinned_at` is since when replicas keep it in memory. Times are unix seconds."""

    id: AdapterId
    object: Literal["adapter"] = "adapter"
    model: str
    base: str
    organization_id: OrganizationId
    project_id: ProjectId
    job_id: JobId
    state: AdapterState
    reason: str | None
    digest: str
    bytes: int
    created_at: int
    live_at: int | None
    draining_at: int | None
    retired_at: int | None
    files_deleted_at: int | None
    pinned_at: int | None

    @classmethod
    def of(cls, row: AdapterRow) -> Self:
        return cls(
            id=AdapterId(row.id),
            model=row.name,
            base=row.base,
            organization_id=OrganizationId(row.organization),
            project_id=ProjectId(row.project),
            job_id=JobId(row.job),
            state=AdapterState(row.state),
            reason=row.reason,
            digest=row.digest,
            bytes=row.bytes,
            created_at=row.created_ms // 1000,
            live_at=_seconds(row.live_ms),
            draining_at=_seconds(row.draining_ms),
            retired_at=_seconds(row.retired_ms),
            files_deleted_at=_seconds(row.files_deleted_ms),
            pinned_at=_seconds(row.pinned_ms),
        )


def _seconds(at_ms: int | None) -> int | None:
    return None if at_ms is None else at_ms // 1000
