"""Which models may be asked in the name of a key."""

from typing import Protocol

from tokenyard.core.errors import InvalidRequest, ModelNotFound
from tokenyard.core.graders.shapes import Grader, ModelGrader, single_graders
from tokenyard.core.ids import OrganizationId
from tokenyard.core.models import ModelTask, ResolvedModel
from tokenyard.core.principal import Principal


class CallableModels(Protocol):
    """The models that an organization can call (catalog)."""

    async def resolve(self, organization: OrganizationId, name: str) -> ResolvedModel:
        """Return a model or raise `ModelNotFound`."""
        ...


async def check_askable(models: CallableModels, caller: Principal, model: str, where: str) -> None:
    """Check that the key of `caller` may ask `model` for a text.

    Raises:
        ModelNotFound: there is none; the error names `where`.
        PermissionDenied: the key may not use it.
        InvalidRequest: it does not answer in text.
    """
    try:
        found = await models.resolve(caller.organization, model)
    except ModelNotFound as unknown:
        raise ModelNotFound(unknown.message, param=where) from None
    caller.check_model(found.name)
    if found.base.task is not ModelTask.CHAT:
        raise InvalidRequest(f"The model '{model[:64]}' does not answer in text.", param=where)


async def check_grader_models(models: CallableModels, caller: Principal, grader: Grader, where: str) -> None:
    """Check each model that a grader asks; raises what `check_askable` does."""
    for one in single_graders(grader).values():
        if isinstance(one, ModelGrader):
            await check_askable(models, caller, one.model, f"{where}.model")
