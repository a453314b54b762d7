"""Files and fine-tuning without a cluster: real stores, loops and blobs; the rest in memory; a clock that we move."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import select

from support.fakes.clock import FrozenClock
from support.finetune.adapter_files import adapter_weights, lora_settings
from support.finetune.adapter_replicas import AdapterReplicas
from support.finetune.answers import ScriptedAnswers
from support.finetune.cluster import TrainingCluster
from support.finetune.ports import (
    FixedModels,
    FixedPrices,
    FixedTerms,
    MemoryAdapterCatalog,
    MemoryReservations,
    SlugOfId,
)
from support.finetune.rows import rows
from tokenyard.bootstrap.finetuning import UPLOAD_RULES
from tokenyard.catalog.store import adapter_bytes
from tokenyard.core.ids import ApiKeyId, FileId, JobId, OrganizationId, ProjectId, random_text
from tokenyard.core.principal import Principal
from tokenyard.core.training import TrainingResources
from tokenyard.files.loops import cleaning_loop
from tokenyard.files.operator_store import FileOperatorStore
from tokenyard.files.store import FileStore, file_bytes
from tokenyard.files.uploads import Uploads
from tokenyard.finetune.creation import JobCreation
from tokenyard.finetune.job import Job
from tokenyard.finetune.job_request import JobRequest
from tokenyard.finetune.loops import finetune_loops
from tokenyard.finetune.operator_store import LEASE_MS, JobOperatorStore, files_in_use
from tokenyard.finetune.pausing import JobPausing
from tokenyard.finetune.scheduling import TrainingPolicy
from tokenyard.finetune.steps.starting import StartingPoints
from tokenyard.finetune.store import JobStore
from tokenyard.finetune.sweeps.creation import SweepCreation
from tokenyard.finetune.sweeps.store import SweepStore
from tokenyard.finetune.sweeps.sweep import Sweep
from tokenyard.finetune.sweeps.sweep_request import SweepRequest
from tokenyard.metering.events import TrainingFinished, decode_event
from tokenyard.metering.stream import USAGE_TOPIC
from tokenyard.storage.blobs import BlobStore
from tokenyard.storage.database import Database
from tokenyard.storage.quota import StorageQuota, StorageUse
from tokenyard.storage.tables import OutboxRow
from tokenyard.web.loops import Loop
from tokenyard.webhooks.events import write_event

FOLDERS_KEPT_MS = 86_400_000
POLICY = TrainingPolicy(resources=TrainingResources(timeout_s=600))


def principal(name: str = "acme") -> Principal:
    return Principal(OrganizationId(f"org_{name}"), ProjectId(f"proj_{name}"), ApiKeyId(f"key_{name}"), 1)


@dataclass
class FinetuneStack:
    database: Database
    folder: Path
    policy: TrainingPolicy = POLICY
    clock: FrozenClock = field(default_factory=FrozenClock)

    def __post_init__(self) -> None:
        self.blobs = BlobStore(f"file://{self.folder}/blobs")
        self.cluster = TrainingCluster(self.blobs)
        self.replicas = AdapterReplicas(self.blobs)
        self.answers = ScriptedAnswers()
        self.catalog = MemoryAdapterCatalog(self.database)
        self.plans = FixedTerms()
        self.reservations = MemoryReservations()
        self.quota = self.quota_of(1_000_000_000)
        self.files = FileStore(self.database, self.clock, files_in_use)
        self.jobs = JobStore(self.database, self.clock, self.files, write_event, max_unfinished=20)
        self.operator = JobOperatorStore(self.database, self.clock, write_event)
        self.pausing = JobPausing(self.jobs, self.policy, self.clock)
        self.creation = self.new_creation()
        self.sweeps = SweepStore(self.database, self.clock, write_event)
        self.worker = self.new_worker()

    def quota_of(self, max_bytes: int) -> StorageQuota:
        return StorageQuota(self.database, max_bytes, file_bytes, adapter_bytes)

    async def stored_bytes(self, organization: OrganizationId) -> int:
        """Return how much of its quota an organization has used up."""
        async with self.database.reading() as session:
            return await StorageUse(file_bytes, adapter_bytes).of(session, organization)

    def new_creation(self, **replaced: Any) -> JobCreation:
        """Return one more gateway's creation of jobs, with some of what it is given replaced."""
        parts: dict[str, Any] = {
            "jobs": self.jobs,
            "files": self.files,
            "models": FixedModels(),
            "callable_models": FixedModels(),
            "prices": FixedPrices(),
            "reservations": self.reservations,
            "organizations": SlugOfId(),
            "plans": self.plans,
            "policy": self.policy,
            "quota": self.quota,
            "past": self.operator.past_training,
            "starts": StartingPoints(self.catalog, self.blobs, FixedModels()),
            "clock": self.clock,
        }
        return JobCreation(**{**parts, **replaced})

    def new_worker(self, **replaced: Any) -> Sequence[Loop]:
        """Return the loops of one more worker, with some of what it is given replaced."""
        parts: dict[str, Any] = {
            "owner": random_text(),
            "database": self.database,
            "blobs": self.blobs,
            "clock": self.clock,
            "files": self.files,
            "models": FixedModels(),
            "runs": self.cluster,
            "nodes": self.cluster,
            "plans": self.plans,
            "reservations": self.reservations,
            "adapters": self.catalog,
            "replicas": self.replicas,
            "canary": self.replicas,
            "answers": self.answers,
            "policy": self.policy,
            "events": write_event,
            "folders_kept_ms": FOLDERS_KEPT_MS,
        }
        leftovers = FileOperatorStore(self.database, self.clock, files_in_use)
        loops = finetune_loops(**{**parts, **replaced})
        return [*loops, cleaning_loop(leftovers, self.files, self.blobs)]

    def uploads(self, *, max_bytes: int, stall_limit_s: float = 30.0) -> Uploads:
        return Uploads(
            self.files,
            self.blobs,
            UPLOAD_RULES,
            max_bytes=max_bytes,
            quota=self.quota_of(10 * max_bytes),
            stall_limit_s=stall_limit_s,
        )

    async def upload(
        self, who: Principal, data: bytes, *, purpose: str = "fine-tune", filename: str = "teach.jsonl"
    ) -> FileId:
        uploads = self.uploads(max_bytes=100_000_000)

        async def body() -> AsyncIterator[bytes]:
            yield f'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\n{purpose}\r\n'.encode()
            yield f'--b\r\ncontent-disposition: form-data; name="file"; filename="{filename}"\r\n\r\n'.encode()
            yield data
            yield b"\r\n--b--\r\n"

        return (await uploads.receive(who, "multipart/form-data; boundary=b", None, body())).id

    async def create(self, who: Principal | None = None, **request: object) -> Job:
        who = who or principal()
        file = await self.upload(who, rows(20))
        asked = {"model": "small-model", "training_file": file, "suffix": "sky", **request}
        return await self.creation.create(who, JobRequest.model_validate(asked))

    async def sweep(self, who: Principal | None = None, key: str | None = None, **request: object) -> Sweep:
        """Create a sweep: of two rates, where nothing else is said."""
        who = who or principal()
        asked = {
            "model": "small-model",
            "training_file": await self.upload(who, rows(20)),
            "validation_file": await self.upload(who, rows(4)),
            "suffix": "sky",
            "sweep": {"learning_rate_multiplier": [1, 2]},
            **request,
        }
        return await SweepCreation(self.creation).create(who, SweepRequest.model_validate(asked), key)

    async def bring(
        self, who: Principal | None = None, *, weights: bytes | None = None, model: str = "small-model", **config: Any
    ) -> Job:
        """Create a job that takes in an adapter: its weights, and what its config says otherwise."""
        who = who or principal()
        file = await self.upload(who, weights or adapter_weights(), purpose="adapter", filename="a.safetensors")
        method = {"type": "adapter", "adapter": {"config": lora_settings(**config)}}
        asked = {"model": model, "training_file": file, "suffix": "own", "method": method}
        return await self.creation.create(who, JobRequest.model_validate(asked))

    async def round(self, worker: Sequence[Loop] | None = None) -> None:
        """Let a worker run each of its loops once, then let a second pass."""
        for loop in worker or self.worker:
            await loop.step()
        self.clock.advance(1.0)

    async def rounds(self, count: int = 3) -> None:
        for _ in range(count):
            await self.round()

    def outlive_leases(self) -> None:
        self.clock.advance(LEASE_MS / 1000 + 1)

    async def job(self, job: JobId) -> Job:
        found = await self.operator.get(job)
        assert found is not None
        return found

    async def charges(self) -> list[TrainingFinished]:
        """Return the usage events that are on their way to the ledger."""
        async with self.database.reading() as session:
            payloads = await session.scalars(select(OutboxRow.payload).where(OutboxRow.topic == USAGE_TOPIC))
            events = [decode_event(payload.encode()) for payload in payloads]
        return [event for event in events if isinstance(event, TrainingFinished)]

    async def messages(self, job: Job) -> list[str]:
        """Return the messages of all events, oldest first."""
        events = await self.jobs.events(job.organization, job.id, limit=1000, after=None)
        return [event.message for event in reversed(events)]
