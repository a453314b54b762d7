"""What the gateway needs from others, held in memory: models, replicas and kept answers."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence

from tokenyard.core.adapters import AdapterRef
from tokenyard.core.errors import InvalidRequest, ModelNotFound
from tokenyard.core.ids import OrganizationId, PriceId, ProjectId
from tokenyard.core.models import BaseModel, ModelTask, ResolvedModel
from tokenyard.core.money import NanoDollars, Price
from tokenyard.core.replica import Replica
from tokenyard.gateway.endpoints.answer import KeptAnswer
from tokenyard.gateway.endpoints.invalid_body import Json

BASE = BaseModel(
    id="test-model",
    path="/nowhere",
    context_length=2048,
    default_max_tokens=64,
    template_tokens=8,
    template_tokens_per_message=6,
    max_lora_rank=16,
    created=1_700_000_000,
    calls_tools=True,
)

EMBEDDER = BaseModel(
    id="test-embedder",
    path="/nowhere",
    context_length=64,
    default_max_tokens=0,
    template_tokens=2,
    template_tokens_per_message=0,
    max_lora_rank=0,
    created=1_700_000_000,
    task=ModelTask.EMBEDDING,
    dimensions=(3, 2),
    vocabulary_size=1000,
)


LOOK_S = 0.02


def price_of(model: str) -> Price:
    """Return rates that tell input, cached input and output apart."""
    return Price(PriceId(f"test/{model}"), model, NanoDollars(100), NanoDollars(10), NanoDollars(1000), NanoDollars(5))


class KnownModels:
    """A base model and one that embeds for all, and fine-tuned ones for one organization each.

    `price` is what they cost.
    """

    def __init__(self, base: BaseModel = BASE) -> None:
        self.base = base
        self.embedder = EMBEDDER
        self.price: Callable[[str], Price] = price_of
        self.fine_tuned: dict[tuple[OrganizationId, str], AdapterRef] = {}

    async def resolve(self, organization: OrganizationId, name: str) -> ResolvedModel:
        for base in (self.base, self.embedder):
            if name == base.id:
                return ResolvedModel(name, base, self.price(name))
        adapter = self.fine_tuned.get((organization, name))
        if adapter is None:
            raise ModelNotFound(f"The model '{name}' does not exist or you do not have access to it.", param="model")
        return ResolvedModel(name, self.base, self.price(name), adapter)


class KnownReplicas:
    """A list of replicas that a test may change; an ejected one is offered again only where there is no other."""

    def __init__(self, replicas: Sequence[Replica] = ()) -> None:
        self.listed = list(replicas)
        self.ejected: list[str] = []
        self.called_for: list[str] = []

    def candidates(self, model: str) -> Sequence[Replica]:
        listed = [one for one in self.listed if one.model == model]
        return [one for one in listed if one.name not in self.ejected] or listed

    def eject(self, name: str) -> None:
        self.ejected.append(name)

    def call_for(self, model: str) -> None:
        self.called_for.append(model)

    async def looked(self) -> None:
        await asyncio.sleep(LOOK_S)


class KeptInMemory:
    """Keeps answers for a test to look at; there is nothing in it to go on with."""

    def __init__(self) -> None:
        self.kept: list[KeptAnswer] = []

    async def check_room(self, organization: OrganizationId) -> None:
        pass

    async def keep(self, organization: OrganizationId, project: ProjectId, answer: KeptAnswer) -> None:
        self.kept.append(answer)

    async def begin(self, organization: OrganizationId, project: ProjectId, answer: KeptAnswer) -> None:
        self.kept.append(answer)

    async def note(self, organization: OrganizationId, project: ProjectId, answer: KeptAnswer) -> None:
        self.kept.append(answer)

    async def renew(self, answers: Sequence[str]) -> Collection[str]:
        return answers

    async def conversation(
        self, organization: OrganizationId, project: ProjectId, response: str, came: Callable[[int], None]
    ) -> Sequence[Json]:
        raise InvalidRequest(f"Previous response with id '{response}' not found.", param="previous_response_id")

    async def items(
        self,
        organization: OrganizationId,
        project: ProjectId,
        wanted: Mapping[str, str],
        came: Callable[[int], None],
    ) -> Mapping[str, Json]:
        raise InvalidRequest("Item not found.", param="input")
