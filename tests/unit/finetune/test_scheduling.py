"""Who trains next, and what the others are told."""

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from tokenyard.core.ids import ApiKeyId, FileId, JobId, OrganizationId, PriceId, ProjectId
from tokenyard.core.money import NanoDollars
from tokenyard.core.training import Hyperparameters, TrainingResources, TrainingTerms
from tokenyard.finetune.job import FairTags, Job, StepProgress
from tokenyard.finetune.progress import JobProgress
from tokenyard.finetune.scheduling import NODES_LAG_S, Standing, TrainingPolicy, decide
from tokenyard.finetune.states import JobOutcome, JobState

NOW_MS = 1_750_000_000_000


def job(number: int, organization: str, *, slot: int | None = None) -> Job:
    return Job(
        id=JobId(f"ftjob-{number}"),
        organization=OrganizationId(organization),
        project=ProjectId("proj_a"),
        key=ApiKeyId("key_a"),
        organization_slug="a",
        created_at_ms=NOW_MS + number,
        model="small-model",
        suffix="custom",
        seed=1,
        training_file=FileId("file-a"),
        method="supervised",
        hyperparameters=Hyperparameters(n_epochs=1, batch_size=1, learning_rate_multiplier=1.0),
        price=PriceId("price"),
        reserved_tokens=1,
        reserved_amount=NanoDollars(1),
        state=JobState.QUEUED if slot is None else JobState.RUNNING,
        slot=slot,
    )


def started(number: int, organization: str, *, slot: int | None, **known: Any) -> Job:
    """A job that has started, and trains where it has a slot."""
    tags = {"started_at_ms": NOW_MS, "fair": FairTags(arrived=0)}
    return msgspec.structs.replace(job(number, organization, slot=slot), **{**tags, **known})


def running(decided: Iterable[tuple[Job, JobProgress]]) -> list[tuple[str, int | None]]:
    return [(p.job.id, p.job.slot) for _, p in decided if p.job.state is JobState.RUNNING]


def test_the_free_slots_go_round_organizations() -> None:
    policy = TrainingPolicy(max_running=3, resources=TrainingResources(timeout_s=600))
    standing = Standing([started(0, "a", slot=1)], free=2)
    queue = [job(1, "a"), job(2, "b"), job(3, "b"), job(4, "c"), job(5, "d")]
    decided = list(decide(policy, standing, queue, NOW_MS))
    assert running(decided) == [("ftjob-2", 0), ("ftjob-4", 2)]
    ran = [progress.job for _, progress in decided if progress.job.slot is not None]
    assert {one.deadline_ms for one in ran} == {None}, "waiting for room takes none of its time"
    waiting = [(p.job.id, p.job.waits_for) for _, p in decided if p.job.state is JobState.QUEUED]
    assert sorted(waiting) == [(f"ftjob-{n}", "room in the training cluster") for n in (1, 3, 5)]


def test_a_weight_is_a_share() -> None:
    terms = {OrganizationId("a"): TrainingTerms(weight=3)}
    queue = [job(n, "a") for n in range(8)] + [job(n, "b") for n in range(8, 16)]
    policy = TrainingPolicy(max_running=None, max_running_per_organization=99)
    ran = running(decide(policy, Standing((), terms, 8), queue, NOW_MS))
    assert sorted(int(name.removeprefix("ftjob-")) for name, _ in ran) == [0, 1, 2, 3, 4, 5, 8, 9]


def test_the_past_of_who_was_idle_does_not_count() -> None:
    past = started(1, "a", slot=None, trained_tokens=1_000_000)
    later = started(2, "b", slot=None, trained_tokens=1, fair=FairTags(arrived=10**9, start=10**9, time=10**9))
    queue = [job(3, "a"), job(4, "b")]
    decided = decide(TrainingPolicy(), Standing([past, later], free=1), queue, NOW_MS)
    assert running(decided) == [("ftjob-3", 0)]


def test_a_job_that_was_paused_comes_anew() -> None:
    later = started(2, "b", slot=None, trained_tokens=1, fair=FairTags(arrived=10**9, start=10**9, time=10**9))
    resumed = started(1, "a", slot=None, state=JobState.QUEUED, attempt=1)
    [(_, waits)] = decide(TrainingPolicy(), Standing([later]), [resumed], NOW_MS)
    assert waits.job.fair is not None
    assert waits.job.fair.arrived >= 10**9, "it saves nothing up while it is paused"
    [(_, again)] = decide(TrainingPolicy(), Standing([later], free=1), [waits.job], NOW_MS)
    assert (again.job.attempt, again.job.fair and again.job.fair.arrived) == (2, waits.job.fair.arrived)
    assert [note.message for note in again.notes] == ["Fine-tuning job goes on"]


def test_a_failed_job_counts_for_the_steps_that_it_made() -> None:
    steps = StepProgress(first=1, first_at=0, last=3, last_at=9, total=4)
    failed = started(1, "a", slot=None, outcome=JobOutcome.FAILED, trained_tokens=0, reserved_tokens=400)
    assert failed.share_tokens == 0
    assert msgspec.structs.replace(failed, steps=steps).share_tokens == 300


def test_what_a_job_waits_for_is_said_once() -> None:
    policy, standing, queue = TrainingPolicy(), Standing([started(0, "a", slot=0)]), [job(1, "b")]
    [(_, first)] = decide(policy, standing, queue, NOW_MS)
    assert [note.message for note in first.notes] == ["The job is waiting for room in the training cluster"]
    [(before, second)] = decide(policy, standing, [first.job], NOW_MS)
    assert (second.job, second.notes) == (before, ())


@pytest.mark.parametrize(
    ("nodes", "max_running", "free"),
    [
        (None, None, 0),
        (None, 4, 3),
        ([], None, -1),
        ([{"CPU": 4.0, "GPU": 2.0}], None, 1),
        ([{"CPU": 4.0, "GPU": 2.0}, {"CPU": 64.0}, {"CPU": 1.0, "GPU": 9.0}], None, 1),
        ([{"CPU": 64.0, "GPU": 8.0}], 3, 2),
        ([{"CPU": 0.1, "GPU": -1.0}], 3, -1),
    ],
)
def test_room_is_what_machines_have_free_but_for_who_is_coming(
    nodes: list[dict[str, float]] | None, max_running: int | None, free: int
) -> None:
    policy = TrainingPolicy(max_running=max_running, resources=TrainingResources(cpus=2.0, gpus=1.0))
    assert policy.free_slots([started(1, "a", slot=0)], nodes, NOW_MS) == free


def test_a_job_is_seen_in_the_report_a_while_after_its_first_step() -> None:
    policy, nodes = TrainingPolicy(max_running=None), [{"CPU": 3.0}]
    at = NOW_MS // 1000
    steps = StepProgress(first=1, first_at=at, last=1, last_at=at, total=9)
    training = [started(1, "a", slot=0, submitted=True, steps=steps)]
    assert policy.free_slots(training, nodes, NOW_MS) == 2
    assert policy.free_slots(training, nodes, NOW_MS + 1000 * NODES_LAG_S) == 3


def test_a_cluster_that_grows_is_given_as_many_as_it_may_have() -> None:
    policy = TrainingPolicy(max_running=5, autoscaled=True)
    assert policy.free_slots([started(1, "a", slot=0)], [], NOW_MS) == 4
