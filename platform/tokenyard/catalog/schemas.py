"""Bodies of the catalog's routes, and how its things are shown."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from tokenyard.catalog.views import Adapter, Alias
from tokenyard.core.catalog import BaseModel as Base
from tokenyard.core.price import Price


class AliasBody(BaseModel):
    """`POST /v1/model_aliases`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    alias: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    model: Annotated[str, Field(min_length=1, max_length=255)]


def shown_alias(alias: Alias) -> dict[str, Any]:
    """Return an alias as the API shows it."""
    return {
        "id": alias.alias,
        "object": "model_alias",
        "model": alias.model,
        "created_at": alias.created_ms // 1000,
    }


def shown_base(base: Base, price: Price | None, adapters: dict[str, int]) -> dict[str, Any]:
    """Return a base model as operators see it; rates are nano-dollars a token."""
    return {
        "id": base.id,
        "object": "model",
        "created": base.created,
        "context_length": base.context_length,
        "default_max_tokens": base.default_max_tokens,
        "max_lora_rank": base.max_lora_rank,
        "price_id": None if price is None else price.id,
        "callable": price is not None,
        "adapters": adapters,
    }


def shown_adapter(adapter: Adapter) -> dict[str, Any]:
    """Return an adapter as operators see it."""
    return {
        "id": adapter.id,
        "object": "adapter",
        "model": adapter.name,
        "base": adapter.base,
        "organization_id": adapter.organization,
        "project_id": adapter.project,
        "job_id": adapter.job,
        "state": adapter.state,
        "reason": adapter.reason,
        "digest": adapter.ref.digest,
        "created_at": adapter.created_ms // 1000,
        "live_at": None if adapter.live_ms is None else adapter.live_ms // 1000,
        "retired_at": None if adapter.retired_ms is None else adapter.retired_ms // 1000,
    }
