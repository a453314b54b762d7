"""What fine-tuning needs from others; `bootstrap` gives the implementations."""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.adapters import AdapterRef, AdapterRules, BaseShapes, FineTunedName
from tokenyard.core.evaluation.questions import Answered, Question
from tokenyard.core.ids import AdapterId, ApiKeyId, FileId, JobId, OrganizationId, ProjectId
from tokenyard.core.models import BaseModel
from tokenyard.core.money import NanoDollars
from tokenyard.core.replica import Replica
from tokenyard.core.training import RunStatus, TrainingTerms
from tokenyard.finetune.methods.method import Json
from tokenyard.storage.database import Fence


class TrainingFile(Protocol):
    @property
    def purpose(self) -> str: ...

    @property
    def bytes(self) -> int: ...

    @property
    def summary(self) -> Json | None:
        """What `methods.dataset.check_upload` found in it; None where it was uploaded for another purpose."""
        ...


class TrainingFiles(Protocol):
    """Uploaded files (files)."""

    async def get(
        self, organization: OrganizationId, file: FileId, session: AsyncSession | None = None
    ) -> TrainingFile:
        """Return a file or raise `NotFound`. While `session` holds the organization's lock, it cannot be deleted."""
        ...

    def path(self, organization: OrganizationId, file: FileId) -> str: ...

    async def enter(
        self,
        organization: OrganizationId,
        session: AsyncSession,
        *,
        project: ProjectId,
        file: FileId,
        filename: str,
        purpose: str,
        size: int,
    ) -> None:
        """Enter a file whose `size` bytes are there, as part of the caller's transaction.

        It counts as stored, and nothing refuses it.
        """
        ...


class TrainableModels(Protocol):
    """The served base models (catalog)."""

    def get(self, model: str) -> BaseModel | None: ...

    def rules(self, model: str) -> AdapterRules:
        """Return what an adapter of the model may be."""
        ...

    def shapes(self, model: str) -> BaseShapes | None:
        """Read the shapes of its weights from the disk; None where they are not on this machine."""
        ...


class OwnAdapter(Protocol):
    """A fine-tuned model that may be called."""

    @property
    def base(self) -> str: ...

    @property
    def ref(self) -> AdapterRef: ...


class OwnAdapters(Protocol):
    """The fine-tuned models of an organization, and checkpoints of them (catalog)."""

    async def own_adapter(self, organization: OrganizationId, name: str) -> OwnAdapter | None:
        """Return the live one called `name`, which is no alias; None also where it is another's."""
        ...

    async def fine_tunes(self, organization: OrganizationId) -> Mapping[str, str]:
        """Return the names under which they can be called now, each with the proper name of what answers."""
        ...


class TrainingReservations(Protocol):
    """Sets money aside for jobs, once (billing); the `TrainingFinished` event of each closes what is its own.

    Where it raises `QuotaExceeded` or `BudgetInUse`, nothing is set aside for any of them.
    """

    async def reserve(
        self, organization: OrganizationId, project: ProjectId, key: ApiKeyId, amounts: Mapping[JobId, NanoDollars]
    ) -> None: ...

    async def lower(self, organization: OrganizationId, job: JobId, amount: NanoDollars) -> None:
        """Keep only `amount` aside where that is less than now; may be repeated."""
        ...


class OrganizationSlugs(Protocol):
    """The part of a model's name that stands for its organization (tenancy)."""

    async def slug(self, organization: OrganizationId) -> str: ...


class TrainingRuns(Protocol):
    """Runs training attempts (Ray's Jobs API). Every call raises Unavailable where the cluster does not answer."""

    async def submit(self, submission_id: str, entrypoint: str, *, metadata: Mapping[str, str]) -> None: ...

    async def status(self, submission_id: str) -> RunStatus | None: ...

    async def stop(self, submission_id: str) -> None: ...


class TrainingNodes(Protocol):
    """The machines of the training cluster (Ray)."""

    async def free(self) -> Sequence[Mapping[str, float]] | None:
        """Return what of its resources each machine has free, by their names; None where the cluster does not say.

        Raises Unavailable where it does not answer. What was just given out may still be among it for `NODES_LAG_S`.
        """
        ...


class TrainingPlans(Protocol):
    """What plans say of training (tenancy)."""

    async def training_terms(
        self, organizations: Collection[OrganizationId]
    ) -> Mapping[OrganizationId, TrainingTerms]: ...


class AdapterLives(Protocol):
    """The life of adapters: checking, live, retired (catalog). Every call may be repeated.

    Where a `fence` raises, nothing has changed.
    """

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
        """Enter it; `size` is in bytes, and `QuotaExceeded` is raised where there is no room for them.

        With a `last_step` it is also called as the checkpoint of that step.
        """
        ...

    async def promote(self, organization: OrganizationId, adapter: AdapterId, *, fence: Fence) -> None: ...

    async def fail(self, organization: OrganizationId, adapter: AdapterId, reason: str) -> None: ...


class ModelAnswers(Protocol):
    """Asks models as tenants do, in the name of a key (clients)."""

    async def ask(
        self, question: Question, *, model: str, key: ApiKeyId, idempotency_key: str, max_tokens: int
    ) -> Answered:
        """Return a model's likeliest answer; again under its idempotency key, the same one, charged once.

        Raises `NotAnswered`.
        """
        ...


class LiveAdapters(Protocol):
    """Where models are that may be called (catalog)."""

    async def path(self, organization: OrganizationId, adapter: AdapterId) -> str | None:
        """Return the folder of its files in the blob store; None where it is not live."""
        ...


class CanaryReplicas(Protocol):
    """The replicas of a base model that may get requests (catalog)."""

    async def of(self, model: str) -> Sequence[Replica]: ...

    async def call_for(self, models: Collection[str]) -> None:
        """Wake those that sleep."""
        ...


class CanaryClient(Protocol):
    """The internal routes of replicas (clients). Every call raises ReplicaLost where the replica does not answer.

    AdapterRefused: the adapter is not loaded, or there is no room for it now; AdapterUnfit: it can never be.
    """

    async def load(self, replica: Replica, adapter: AdapterRef) -> None: ...

    async def canary(self, url: str, adapter: str | None, prompt: str) -> Sequence[float]: ...
