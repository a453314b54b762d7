"""`GET /v1/models` and `GET /v1/models/{id}`: what the caller's organization may use."""

from fastapi import APIRouter

from tokenyard.core.catalog import ModelView
from tokenyard.gateway.ports import ModelCatalog
from tokenyard.web.auth import CurrentTenant


def router(catalog: ModelCatalog) -> APIRouter:
    """Return the routes over `catalog`."""
    routes = APIRouter(prefix="/v1/models")

    @routes.get("")
    async def list_models(tenant: CurrentTenant) -> dict[str, object]:
        models = await catalog.list_models(tenant.organization)
        return {"object": "list", "data": [_shown(model) for model in models]}

    @routes.get("/{name:path}")
    async def get_model(name: str, tenant: CurrentTenant) -> dict[str, object]:
        return _shown(await catalog.get(tenant.organization, name))

    return routes


def _shown(model: ModelView) -> dict[str, object]:
    return {"id": model.id, "object": "model", "created": model.created, "owned_by": model.owned_by}
