"""Which jobs train: the bounds of an installation, the room in its cluster, and who is next."""

from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

import msgspec

from tokenyard.core.ids import OrganizationId
from tokenyard.core.training import TrainingResources, TrainingTerms
from tokenyard.finetune.job import Job
from tokenyard.finetune.planning.estimate import machine_kind
from tokenyard.finetune.planning.fair_share import FairShare
from tokenyard.finetune.progress import JobProgress, Note
from tokenyard.finetune.states import TRAINING, JobState

# An attempt ends itself at its timeout and says so; only one that does not is ended from outside, this much later.
_GRACE_S = 60.0
DAY_MS = 86_400_000
WITHOUT_ROOM_KNOWN = 1
NODES_LAG_S = 10
"""For so long after its first step a job may not be seen in what the cluster says of its resources."""


class Waiting(StrEnum):
    """What a queued job waits for, in words for its tenant, who is told nothing of others."""

    ROOM = "room in the training cluster"
    CLUSTER = "the training cluster, which does not answer"
    OWN_JOBS = "another job of your organization to finish training"
    OWN_TOKENS = "the day to pass in which your organization has trained as many tokens as it may"


@dataclass(frozen=True)
class TrainingPolicy:
    """Bounds of fine-tuning.

    At most `max_running` jobs train at once, and no more than the cluster has room for, unless it is `autoscaled` and
    so makes room for what it is given. The bounds of an organization hold where its plan states no others.
    `resources.timeout_s` bounds one attempt, from when its workers have room. A run that does not end within
    `pausing_timeout_s` of being asked to pause is stopped; a job that is paused longer than `paused_limit_s` is
    cancelled. `validation_timeout_s` bounds one check of a job's files, from when it runs; `max_attempts` is for
    checks, too. What base and tuned model do not answer within `evaluation_timeout_s` is left out. The base of
    `quantized_models` is held in four bits while an adapter is trained.
    """

    max_running: int | None = 1
    autoscaled: bool = False
    max_running_per_organization: int = 3
    max_unfinished_per_organization: int = 20
    max_attempts: int = 3
    validation_timeout_s: float = 3600.0
    checking_timeout_s: float = 1800.0
    evaluation_timeout_s: float = 120.0
    pausing_timeout_s: float = 120.0
    paused_limit_s: float = 7 * 86_400.0
    quantized_models: frozenset[str] = frozenset()
    resources: TrainingResources = field(default_factory=TrainingResources)

    def paused_deadline_ms(self, now_ms: int) -> int:
        """Return when a job that is paused now is cancelled."""
        return now_ms + int(self.paused_limit_s * 1000)

    def attempt_deadline_ms(self, now_ms: int) -> int:
        """Return when an attempt whose workers have room since now must have ended."""
        return now_ms + int((self.resources.timeout_s + _GRACE_S) * 1000)

    def free_slots(self, training: Sequence[Job], nodes: Sequence[Mapping[str, float]] | None, now_ms: int) -> int:
        """Return how many jobs more may train, where `nodes` have so much free."""
        if self.autoscaled and self.max_running is not None:
            return self.max_running - len(training)
        if nodes is None:
            return (self.max_running or WITHOUT_ROOM_KNOWN) - len(training)
        # Those that have not made a step hold nothing yet, or it is not known.
        coming = sum(
            not job.submitted or job.steps is None or job.steps.first_at + NODES_LAG_S > now_ms // 1000
            for job in training
        )
        room = sum(self._fitting(free) for free in nodes) // self.resources.num_workers - coming
        return room if self.max_running is None else min(room, self.max_running - len(training))

    def _fitting(self, free: Mapping[str, float]) -> int:
        needed = {"CPU": self.resources.cpus, "GPU": self.resources.gpus}
        # Hundredths of tenths of CPUs do not add up to whole ones.
        return max(0, min(int(free.get(name, 0) / each + 1e-6) for name, each in needed.items() if each > 0))


class Standing(NamedTuple):
    """What the decision goes by.

    `started` are the jobs that train or started within a day, in that order, or where there are none the last that
    started; `free` None means that the cluster does not answer.
    """

    started: Sequence[Job] = ()
    terms: Mapping[OrganizationId, TrainingTerms] = {}
    free: int | None = 0

    @property
    def training(self) -> list[Job]:
        return [job for job in self.started if job.slot is not None]


def decide(
    policy: TrainingPolicy, standing: Standing, queue: Sequence[Job], now_ms: int
) -> Iterator[tuple[Job, JobProgress]]:
    """Yield each queued job with its progress: the fairest start, the others say what they wait for."""
    share = FairShare(standing.started)
    before = {job.id: job for job in queue}
    queues = _Queues(policy, standing, share.arrived(queue), now_ms)
    weights = queues.weights()
    taken = {job.slot for job in standing.training}
    slots = (slot for slot in range(len(taken) + len(queue)) if slot not in taken)
    for _ in range(standing.free or 0):
        startable = queues.startable()
        if not startable:
            break
        job = min(startable, key=lambda one: (share.tag(one), one.created_at_ms, one.id))
        queues.start(job)
        after = msgspec.structs.replace(
            job,
            state=JobState.RUNNING,
            slot=next(slots),
            attempt=job.attempt + 1,
            waits_for=None,
            deadline_ms=None,
            steps=None,
            started_at_ms=now_ms,
            machine=machine_kind(policy.resources),
            fair=share.start(job, queues.terms(job.organization).weight, weights),
        )
        message = "Fine-tuning job started" if after.attempt == 1 else "Fine-tuning job goes on"
        note = Note(message=message, source=f"started {after.attempt}")
        yield before[job.id], JobProgress(after, (note,))
    for jobs in queues.waiting.values():
        for job in jobs:
            missing = Waiting.CLUSTER if standing.free is None else Waiting.ROOM
            yield before[job.id], _waiting(job, queues.hindrance(job) or missing)


def _waiting(job: Job, reason: Waiting) -> JobProgress:
    """Say each reason once in a job's life, however often it comes back."""
    after = msgspec.structs.replace(job, waits_for=reason.value)
    told = Note(message=f"The job is waiting for {reason}", source=f"waits:{reason.name.lower()}")
    return JobProgress(after, (told,) if reason != job.waits_for else ())


class _Queues:
    """The waiting jobs of each organization, first come first, and whether its own limits let the first one start."""

    def __init__(self, policy: TrainingPolicy, standing: Standing, queue: Sequence[Job], now_ms: int) -> None:
        self._policy = policy
        self._terms = standing.terms
        self._running = Counter(job.organization for job in standing.started if job.state in TRAINING)
        self._tokens: Counter[OrganizationId] = Counter()
        self.waiting: dict[OrganizationId, deque[Job]] = defaultdict(deque)
        for job in standing.started:
            if (job.started_at_ms or 0) > now_ms - DAY_MS:
                self._tokens[job.organization] += job.share_tokens
        for job in queue:
            self.waiting[job.organization].append(job)

    def terms(self, organization: OrganizationId) -> TrainingTerms:
        return self._terms.get(organization, TrainingTerms())

    def weights(self) -> int:
        """Return the weights of all who wait or train, together."""
        return sum(self.terms(organization).weight for organization in {*self.waiting, *self._running})

    def startable(self) -> list[Job]:
        return [jobs[0] for jobs in self.waiting.values() if jobs and self.hindrance(jobs[0]) is None]

    def hindrance(self, job: Job) -> Waiting | None:
        limits = self.terms(job.organization).limits
        running = self._policy.max_running_per_organization if limits.running is None else limits.running
        if self._running[job.organization] >= running:
            return Waiting.OWN_JOBS
        tokens = self._tokens[job.organization] + job.share_tokens
        if limits.tokens_per_day is not None and tokens > limits.tokens_per_day:
            return Waiting.OWN_TOKENS
        return None

    def start(self, job: Job) -> None:
        self.waiting[job.organization].popleft()
        self._running[job.organization] += 1
        self._tokens[job.organization] += job.share_tokens
