"""Operator routes of the model files."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field

from tokenyard.catalog.base_models.operator_store import MAX_FILE_CHARS, MAX_MODELS, ModelFileOperatorStore
from tokenyard.catalog.base_models.views import ModelFilesChecked, ModelFilesView
from tokenyard.core.errors import InvalidRequest, NotFound
from tokenyard.core.models import InvalidModelSpec
from tokenyard.storage.transactional_outbox import TransactionalOutbox
from tokenyard.web.auth import CurrentOperator

_File = Annotated[str, Field(min_length=1, max_length=MAX_FILE_CHARS)]


class ModelFileSet(BaseModel, extra="forbid", strict=True):
    """The YAML of every model that is to be served, in the order of their list."""

    files: Annotated[list[_File], Field(min_length=1, max_length=MAX_MODELS)]


def model_file_router(store: ModelFileOperatorStore, outbox: TransactionalOutbox) -> APIRouter:
    routes = APIRouter(prefix="/admin/model_files", tags=["catalog"])

    @routes.get("")
    async def current(_operator: CurrentOperator) -> ModelFilesView:
        """Show the set of model files in force."""
        found = await store.current()
        if found is None:
            raise NotFound("No model files were published: each process serves by its own.")
        return ModelFilesView.of(found)

    @routes.post("")
    async def publish(operator: CurrentOperator, body: ModelFileSet) -> ModelFilesView:
        """Put a set of model files in force, in every gateway and worker within a second."""
        with _refused():
            row, messages = await store.publish(body.files, actor=operator.key)
        await outbox.try_to_carry(messages)
        return ModelFilesView.of(row)

    @routes.post("/check")
    async def check(_operator: CurrentOperator, body: ModelFileSet) -> ModelFilesChecked:
        """Tell whether a set could be put in force; nothing changes."""
        with _refused():
            return ModelFilesChecked(models=store.check(body.files))

    return routes


@contextmanager
def _refused() -> Iterator[None]:
    try:
        yield
    except InvalidModelSpec as error:
        raise InvalidRequest(str(error), param="files", code="invalid_model_file") from error
