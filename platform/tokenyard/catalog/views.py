"""The API's shapes of the catalog. `GET /v1/models` lists exactly OpenAI's fields; one model tells more."""

from typing import Annotated, Literal, Self

import msgspec
from pydantic import BaseModel, Field

from tokenyard.catalog.tables import AdapterRow, AdapterState, AliasRow
from tokenyard.core.ids import AdapterId, JobId, OrganizationId, PriceId, ProjectId
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
    """OpenAI's list of models, which has no pages."""

    object: Literal["list"] = "list"
    data: list[ModelListItem]


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
    dimensions: list[int] | None
    sampling: SamplingView | None

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


class AliasView(Identified):
    """A name of the organization's own for a model."""

    object: Literal["model_alias"] = "model_alias"
    model: str
    created_at: int

    @classmethod
    def of(cls, row: AliasRow) -> Self:
        return cls(id=row.alias, model=row.model, created_at=row.created_ms // 1000)


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
    """An adapter as operators see it. Times are unix seconds."""

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
    created_at: int
    live_at: int | None
    retired_at: int | None

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
            created_at=row.created_ms // 1000,
            live_at=None if row.live_ms is None else row.live_ms // 1000,
            retired_at=None if row.retired_ms is None else row.retired_ms // 1000,
        )
