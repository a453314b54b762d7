"""What a caller does with its aliases: point one at a model it may use, roll it back, delete it."""

from tokenyard.catalog.aliases.store import AliasStore
from tokenyard.catalog.base_models.base_models import BaseModels
from tokenyard.catalog.models import ModelCatalog
from tokenyard.catalog.push import CatalogPush
from tokenyard.catalog.views import AliasView
from tokenyard.core.errors import Conflict, ModelNotFound
from tokenyard.core.principal import Principal


class ModelAliases:
    """Every change is in force on every gateway within a second."""

    def __init__(self, store: AliasStore, models: ModelCatalog, bases: BaseModels, push: CatalogPush) -> None:
        self.store = store
        self._models = models
        self._bases = bases
        self._push = push

    async def point(self, caller: Principal, alias: str, model: str, *, must_exist: bool = False) -> AliasView:
        """Let `alias` stand for `model`, itself maybe an alias, which is then looked through.

        Raises:
            NotFound: there is no such model, or no such alias and there must be one.
            PermissionDenied: the caller may not use the model.
            Conflict: the name is a base model's, or the organization has too many aliases.
        """
        if self._bases.get(alias) is not None:
            raise Conflict(f"`{alias}` is the name of a model.", param="alias")
        return await self._point(caller, alias, model, must_exist=must_exist)

    async def roll_back(self, caller: Principal, alias: str, revision: int | None) -> AliasView:
        """Let `alias` stand again for what it stood for at a revision, or before the one in force where that is None.

        Raises:
            NotFound: there is no such alias or revision.
            PermissionDenied: the caller may not use that model.
            Conflict: that model cannot be called any more.
        """
        earlier = await self.store.earlier(caller.organization, alias, revision)
        restores = earlier.restores or earlier.revision
        try:
            return await self._point(caller, alias, earlier.model, restores=restores, must_exist=True)
        except ModelNotFound:
            gone = (
                f"At revision {earlier.revision} `{alias}` stood for `{earlier.model}`, which is not served any more."
            )
            raise Conflict(gone, param="revision") from None

    async def delete(self, caller: Principal, alias: str) -> None:
        """Forget an alias and its revisions; what it stands for goes on."""
        messages = await self.store.delete(caller.organization, alias, actor=caller.key)
        await self._push.changed(caller.organization, messages)

    async def _point(
        self, caller: Principal, alias: str, model: str, *, restores: int | None = None, must_exist: bool
    ) -> AliasView:
        resolved = await self._models.resolve(caller.organization, model)
        caller.check_model(resolved.name)
        view, messages = await self.store.point(
            caller.organization,
            alias,
            model=resolved.name,
            adapter=None if resolved.adapter is None else resolved.adapter.id,
            actor=caller.key,
            restores=restores,
            must_exist=must_exist,
        )
        await self._push.changed(caller.organization, messages)
        return view
