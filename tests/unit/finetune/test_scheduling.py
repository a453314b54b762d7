"""Who trains next, and what the others are told."""

from tokenyard.core.ids import ApiKeyId, FileId, JobId, OrganizationId, PriceId, ProjectId
from tokenyard.core.money import NanoDollars
from tokenyard.core.training import Hyperparameters, TrainingResources
from tokenyard.finetune.job import Job
from tokenyard.finetune.scheduling import TrainingPolicy, decide
from tokenyard.finetune.states import JobState

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


def test_free_slots_are_given_in_order_and_never_two_to_one_organization() -> None:
    policy = TrainingPolicy(max_running=3, resources=TrainingResources(timeout_s=600))
    queue = [job(1, "a"), job(2, "b"), job(3, "b"), job(4, "c"), job(5, "d")]
    decided = [progress.job for _, progress in decide(policy, [job(0, "a", slot=1)], queue)]
    assert [(one.id, one.slot, one.attempt) for one in decided if one.state is JobState.RUNNING] == [
        ("ftjob-2", 0, 1),
        ("ftjob-4", 2, 1),
    ]
    assert {one.deadline_ms for one in decided if one.slot is not None} == {None}, (
        "waiting for room takes none of its time"
    )
    assert [(one.id, one.waits_for) for one in decided if one.state is JobState.QUEUED] == [
        ("ftjob-1", "another job of your organization to finish training"),
        ("ftjob-3", "another job of your organization to finish training"),
        ("ftjob-5", "a training slot: 3 in use and 2 in the queue before it"),
    ]


def test_what_a_job_waits_for_is_said_once() -> None:
    policy = TrainingPolicy()
    training, queue = [job(0, "a", slot=0)], [job(1, "b")]
    [(_, first)] = decide(policy, training, queue)
    assert [note.message for note in first.notes] == ["The job is waiting for a training slot: 1 in use"]
    [(before, second)] = decide(policy, training, [first.job])
    assert (second.job, second.notes) == (before, ())
