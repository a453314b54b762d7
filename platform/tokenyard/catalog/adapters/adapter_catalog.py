"""The life of adapters, as jobs and owners drive it: register, promote or fail, delete."""

from contextlib import suppress

from tokenyard.catalog.base_models.base_models import BaseModels
from tokenyard.catalog.changes import WORKER
from tokenyard.catalog.models import ModelCatalog, model_not_found
from tokenyard.catalog.push import CatalogPush
from tokenyard.catalog.store import CatalogStore
from tokenyard.core.adapters import AdapterRef, FineTunedName, parse_fine_tuned, valid_suffix
from tokenyard.core.errors import Conflict, InvalidRequest, NotFound, PermissionDenied
from tokenyard.core.ids import AdapterId, ApiKeyId, JobId, OrganizationId, ProjectId
from tokenyard.storage.database import Fence


class AdapterCatalog:
    """Every step may be repeated: a caller that died in between simply calls again.

    Where a `fence` raises, nothing has changed.
    """

    def __init__(self, bases: BaseModels, store: CatalogStore, models: ModelCatalog, push: CatalogPush) -> None:
        self._bases = bases
        self._store = store
        self._models = models
        self._push = push

    async def register(
        self,
        organization: OrganizationId,
        *,
        project: ProjectId,
        name: FineTunedName,
        path: str,
        digest: str,
        size: int,
        job: JobId,
        actor: ApiKeyId,
        last_step: int | None = None,
        fence: Fence | None = None,
    ) -> None:
        """Enter an adapter that is to be checked, before its files are written: so none are without an owner.

        Its name stands from now on for ever. With a `last_step` it is also called as the checkpoint of that step.

        Raises:
            InvalidRequest: no such base model, or a part cannot stand in a name.
            Conflict: another adapter has this id, or it is a checkpoint whose model was deleted.
            QuotaExceeded: the organization has no room for so many bytes.
        """
        if self._bases.get(name.base) is None:
            raise InvalidRequest(f"The base model `{name.base}` is not served here.", param="model")
        if parse_fine_tuned(str(name)) != name or (name.suffix and not valid_suffix(name.suffix)):
            raise InvalidRequest(f"`{name}` cannot be the name of a fine-tuned model.", param="suffix")
        ref = AdapterRef(id=name.adapter, name=str(name), path=path, digest=digest)
        await self._store.add_adapter(
            organization,
            ref,
            project=project,
            job=job,
            base=name.base,
            size=size,
            actor=actor,
            checkpoint_of=None if name.step is None else name.id,
            last_step=last_step,
            fence=fence,
        )

    async def promote(self, organization: OrganizationId, adapter: AdapterId, *, fence: Fence | None = None) -> None:
        """Make a checked adapter callable, on every gateway within a second.

        Raises:
            NotFound: the organization has no such adapter.
            Conflict: it is retired, or nothing says what it costs.
        """
        found = await self._store.adapter(organization, adapter)
        if not self._models.may_serve(found):
            raise Conflict(f"The rate card has no price for fine-tunes of `{found.base}`, so it cannot go live.")
        await self._push.changed(organization, await self._store.promote(organization, adapter, fence))

    async def fail(self, organization: OrganizationId, adapter: AdapterId, reason: str) -> None:
        """Retire an adapter that did not pass its checks or is not wanted any more; one never registered is fine."""
        with suppress(NotFound):
            await self.retire(organization, adapter, actor=WORKER, reason=reason)

    async def delete(self, organization: OrganizationId, name: str, *, actor: ApiKeyId) -> None:
        """Retire a live fine-tune by its full name, and a model's checkpoints with it, because its owner says so.

        Raises:
            ModelNotFound: the organization has no such fine-tune.
            PermissionDenied: it is a base model.
            InvalidRequest: it is the checkpoint that is the model itself.
        """
        if self._bases.get(name) is not None:
            raise PermissionDenied("Only fine-tuned models can be deleted.")
        found = await self._models.own_adapter(organization, name)
        if found is None:
            raise model_not_found(name)
        if found.name != name:
            raise InvalidRequest(f"This checkpoint is the model `{found.name}` itself: delete that.", param="model")
        reason = "deleted by its owner"
        messages = await self._store.retire(organization, found.id, actor=actor, reason=reason, with_checkpoints=True)
        await self._push.changed(organization, messages)

    async def retire(self, organization: OrganizationId, adapter: AdapterId, *, actor: ApiKeyId, reason: str) -> None:
        """Give an adapter no new request any more; one that has ended already stays as it is.

        One that the organization does not have raises `NotFound`.
        """
        messages = await self._store.retire(organization, adapter, actor=actor, reason=reason)
        await self._push.changed(organization, messages)
