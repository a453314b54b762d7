"""What fine-tuning needs from catalog, billing and tenancy, in memory, with the same promises."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import msgspec

from support.finetune.adapter_files import base_weights, read_shapes
from tokenyard.core.adapters import AdapterRef, AdapterRules, BaseShapes, FineTunedName
from tokenyard.core.errors import BudgetInUse, ModelNotFound, QuotaExceeded
from tokenyard.core.ids import AdapterId, ApiKeyId, JobId, OrganizationId, PriceId, ProjectId
from tokenyard.core.models import BaseModel, ModelTask, ResolvedModel, TrainingDefaults
from tokenyard.core.money import NanoDollars, Price
from tokenyard.core.training import TrainingTerms
from tokenyard.storage.database import Database, Fence

SMALL_MODEL = BaseModel(
    id="small-model",
    path="/models/small-model",
    context_length=2048,
    default_max_tokens=256,
    template_tokens=8,
    template_tokens_per_message=8,
    max_lora_rank=16,
    created=1_700_000_000,
    content_hash="c" * 64,
    training=TrainingDefaults({"supervised": 2.5}),
)
EMBEDDER = msgspec.structs.replace(SMALL_MODEL, id="embedder", task=ModelTask.EMBEDDING, max_lora_rank=0)
TRAINING_RATE = NanoDollars(3000)


class FixedModels:
    """One base model, and one that makes embeddings."""

    def __init__(self, *models: BaseModel) -> None:
        self.base_shapes: BaseShapes | None = read_shapes(base_weights())
        self._models = {model.id: model for model in models or (SMALL_MODEL, EMBEDDER)}

    def get(self, model: str) -> BaseModel | None:
        return self._models.get(model)

    def rules(self, model: str) -> AdapterRules:
        return AdapterRules(self._models[model].max_lora_rank)

    def shapes(self, model: str) -> BaseShapes | None:
        return self.base_shapes

    async def resolve(self, organization: OrganizationId, name: str) -> ResolvedModel:
        if (base := self._models.get(name)) is None:
            raise ModelNotFound(f"The model `{name}` does not exist.", param="model")
        rate = NanoDollars(1)
        return ResolvedModel(name, base, Price(PriceId("p"), name, rate, rate, rate, rate))


class FixedPrices:
    """The same rates for every model, except for those in `without`."""

    def __init__(self, *, without: Sequence[str] = ()) -> None:
        self._without = frozenset(without)

    def price(self, model: str, *, fine_tuned: bool, at_ms: int) -> Price | None:
        if model in self._without:
            return None
        identity = f"2026-01-01/{model}" + ("/fine-tuned" if fine_tuned else "")
        return Price(PriceId(identity), model, NanoDollars(100), NanoDollars(50), NanoDollars(400), TRAINING_RATE)


class MemoryReservations:
    """A wallet for each organization, from which jobs reserve."""

    def __init__(self, wallet: int = 10**12) -> None:
        self.wallet = wallet
        self.in_use = 0
        self.open: dict[JobId, int] = {}

    async def reserve(
        self, organization: OrganizationId, project: ProjectId, key: ApiKeyId, amounts: Mapping[JobId, NanoDollars]
    ) -> None:
        others = sum(held for other, held in self.open.items() if other not in amounts)
        amount = sum(amounts.values())
        if others + amount > self.wallet:
            raise QuotaExceeded("You exceeded your current quota.")
        if others + amount + self.in_use > self.wallet:
            raise BudgetInUse("Please try again when other requests have ended.", retry_after_s=1)
        self.open |= amounts

    async def lower(self, organization: OrganizationId, job: JobId, amount: NanoDollars) -> None:
        self.open[job] = min(self.open[job], amount)


class FixedTerms:
    """What plans say of training: for everybody what was said of them, or what holds without a plan."""

    def __init__(self) -> None:
        self.said: dict[OrganizationId, TrainingTerms] = {}

    async def training_terms(self, organizations: Collection[OrganizationId]) -> Mapping[OrganizationId, TrainingTerms]:
        return {organization: self.said.get(organization, TrainingTerms()) for organization in organizations}


class SlugOfId:
    """Every organization's slug is the end of its id."""

    async def slug(self, organization: OrganizationId) -> str:
        return organization.removeprefix("org_").lower()


class OwnModel(NamedTuple):
    base: str
    ref: AdapterRef


class MemoryAdapterCatalog:
    """The life of each adapter, as a list of what happened to it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.lives: dict[AdapterId, list[str]] = {}
        self.paths: dict[AdapterId, tuple[str, str]] = {}
        self.names: dict[AdapterId, FineTunedName] = {}
        self.owners: dict[AdapterId, OrganizationId] = {}
        self.last_steps: dict[AdapterId, int] = {}

    async def path(self, organization: OrganizationId, adapter: AdapterId) -> str | None:
        folder = self.paths.get(adapter, ("", ""))[0]
        mine = folder.startswith(f"adapters/{organization}/")
        return folder if mine and self.lives[adapter][-1] == "live" else None

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
        last_step: int | None,
        fence: Fence,
    ) -> None:
        async with self._database.transaction() as session:
            await fence(session)
        self.names[name.adapter] = name
        self.owners[name.adapter] = organization
        self.paths[name.adapter] = (path, digest)
        if last_step is not None:
            self.last_steps[name.adapter] = last_step
        self._next(name.adapter, "checking")

    async def promote(self, organization: OrganizationId, adapter: AdapterId, *, fence: Fence) -> None:
        async with self._database.transaction() as session:
            await fence(session)
        self._next(adapter, "live")

    async def fail(self, organization: OrganizationId, adapter: AdapterId, reason: str) -> None:
        if adapter in self.lives:
            self._next(adapter, "retired")

    async def own_adapter(self, organization: OrganizationId, name: str) -> OwnModel | None:
        proper = (await self.fine_tunes(organization)).get(name)
        for adapter, found in self.names.items():
            if str(found) == proper:
                path, digest = self.paths[adapter]
                return OwnModel(found.base, AdapterRef(adapter, proper, path, digest))
        return None

    async def fine_tunes(self, organization: OrganizationId) -> Mapping[str, str]:
        names = {}
        for adapter, name in self.names.items():
            if self.owners[adapter] == organization and self.lives[adapter][-1] == "live":
                names[str(name)] = str(name)
                if adapter in self.last_steps:
                    names[str(name.at_step(self.last_steps[adapter]))] = str(name)
        return names

    def _next(self, adapter: AdapterId, state: str) -> None:
        life = self.lives.setdefault(adapter, [])
        if state not in life:
            life.append(state)
