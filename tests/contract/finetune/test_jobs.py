"""Fine-tuning jobs as the `openai` SDK sees them, before any of them trains."""

import json
from typing import Any

import httpx
import openai
import pytest
from sqlalchemy import func, select

from support.finetune.fixtures import BOUND_KEY, CHEAP_KEY, Platform
from support.finetune.ports import TRAINING_RATE
from support.finetune.rows import rows
from support.openai_errors import message_of
from tokenyard.finetune.tables import JobRow


async def _file(platform: Platform, count: int = 20, client: openai.AsyncOpenAI | None = None) -> str:
    made = await (client or platform.acme).files.create(file=("teach.jsonl", rows(count)), purpose="fine-tune")
    return made.id


async def test_a_job_is_created_and_found(platform: Platform) -> None:
    file = await _file(platform)
    job = await platform.acme.fine_tuning.jobs.create(
        model="small-model", training_file=file, suffix="Sky", seed=7, metadata={"team": "blue"}
    )
    assert job.id.startswith("ftjob-")
    assert (job.object, job.status, job.model, job.seed) == ("fine_tuning.job", "validating_files", "small-model", 7)
    assert (job.organization_id, job.training_file, job.validation_file) == ("org_acme", file, None)
    assert (job.fine_tuned_model, job.finished_at, job.trained_tokens, job.error) == (None, None, None, None)
    assert (job.result_files, job.metadata) == ([], {"team": "blue"})
    assert job.hyperparameters.n_epochs == 10  # 20 rows: many passes
    assert job.method is not None
    assert job.method.supervised is not None
    assert job.method.supervised.hyperparameters is not None
    assert job.method.supervised.hyperparameters.n_epochs == 10
    assert await platform.acme.fine_tuning.jobs.retrieve(job.id) == job
    assert [found.id async for found in await platform.acme.fine_tuning.jobs.list()] == [job.id]


async def test_the_worst_case_is_reserved(platform: Platform) -> None:
    file = await _file(platform, 20)
    job = await platform.acme.fine_tuning.jobs.create(
        model="small-model",
        training_file=file,
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3, "batch_size": 2}}},
    )
    assert (job.hyperparameters.n_epochs, job.hyperparameters.batch_size) == (3, 2)
    text = len("Which colour is the sky?") + len("Blue.")
    tokens = 3 * 20 * (text + 8 + 2 * 8)
    assert platform.reservations.open == {job.id: tokens * TRAINING_RATE}


async def test_a_job_costs_what_the_plan_says_when_it_is_created(platform: Platform) -> None:
    file = await _file(platform, 20)
    cheap = platform.acme.with_options(api_key=CHEAP_KEY)
    job = await cheap.fine_tuning.jobs.create(model="small-model", training_file=file)
    async with platform.database.reading() as session:
        row = (await session.scalars(select(JobRow))).one()
    assert row.price == "2026-01-01/small-model@0.8"
    assert platform.reservations.open == {job.id: row.reserved_tokens * TRAINING_RATE * 4 // 5}


async def test_a_model_that_the_key_may_not_use_is_not_trained(platform: Platform) -> None:
    file = await _file(platform)
    bound = platform.acme.with_options(api_key=BOUND_KEY)
    with pytest.raises(openai.PermissionDeniedError) as refused:
        await bound.fine_tuning.jobs.create(model="small-model", training_file=file)
    assert refused.value.code == "model_not_found"
    assert platform.reservations.open == {}
    assert (await bound.fine_tuning.jobs.list()).data == []


async def test_a_job_that_is_not_covered_leaves_nothing(platform: Platform) -> None:
    file = await _file(platform)
    platform.reservations.wallet = 1000
    with pytest.raises(openai.RateLimitError) as refused:
        await platform.acme.fine_tuning.jobs.create(model="small-model", training_file=file)
    assert refused.value.type == "insufficient_quota"
    assert refused.value.response.headers["x-should-retry"] == "false"
    async with platform.database.reading() as session:
        assert await session.scalar(select(func.count()).select_from(JobRow)) == 0
    assert platform.reservations.open == {}


async def test_a_reservation_that_breaks_ends_the_job_so_that_it_is_released(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = await _file(platform)

    async def broken(*_arguments: object) -> None:
        raise ConnectionError

    monkeypatch.setattr(platform.reservations, "reserve", broken)
    with pytest.raises(openai.InternalServerError):
        await platform.acme.fine_tuning.jobs.create(model="small-model", training_file=file)
    async with platform.database.reading() as session:
        job = await session.scalar(select(JobRow))
    assert job is not None
    assert (job.state, job.outcome, job.trained_tokens) == ("settling", "failed", 0)


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"suffix": "no spaces!"}, "suffix", "a-z"),
    ({"suffix": ""}, "suffix", "a-z"),
    ({"seed": -1}, "seed", "greater"),
    ({"model": "embedder"}, "model", "makes embeddings. It cannot be fine-tuned"),
    ({"hyperparameters": {"n_epochs": 51}}, "hyperparameters.n_epochs", "1 to 50"),
    ({"hyperparameters": {"n_epochs": "many"}}, "hyperparameters.n_epochs", '"auto"'),
    ({"hyperparameters": {"batch_size": 0}}, "hyperparameters.batch_size", "1 to 256"),
    ({"hyperparameters": {"learning_rate_multiplier": 0}}, "hyperparameters.learning_rate_multiplier", "above 0"),
    ({"hyperparameters": {"momentum": 1}}, "hyperparameters.momentum", ""),
    ({"method": {"type": "reinforcement"}}, "method.reinforcement", "Missing required field"),
    ({"method": {"type": "full"}}, "method.type", "a base model of its own"),
    ({"integrations": [{"type": "wandb"}]}, "integrations.0.wandb", "has settings"),
    ({"integrations": [{"type": "tensorboard", "wandb": {"project": "x"}}]}, "integrations.0.wandb", "has settings"),
    ({"integrations": [{"type": "wandb", "wandb": {"project": "a/b"}}]}, "integrations.0.wandb.project", "pattern"),
    ({"integrations": [{"type": "wandb", "wandb": {"project": "x"}}] * 2}, "integrations", "one run"),
    ({"metadata": {str(number): "" for number in range(17)}}, "metadata", "16"),
    ({"metadata": {"key": "x" * 513}}, "metadata.key", "512"),
    ({"training_file": "file-none"}, "training_file", "No such File"),
    ({"validation_file": "file-none"}, "validation_file", "No such File"),
]


async def test_a_wrong_field_is_named(platform: Platform) -> None:
    file = await _file(platform)
    for change, param, said in WRONG:
        asked = {"model": "small-model", "training_file": file, **change}
        with pytest.raises(openai.BadRequestError) as refused:
            await platform.acme.fine_tuning.jobs.create(**asked)
        assert refused.value.param == param
        assert said in message_of(refused.value)
    assert platform.reservations.open == {}


async def test_an_unknown_model_is_not_found(platform: Platform) -> None:
    for model in ("gpt-9", "ft:small-model:acme:x:1"):
        with pytest.raises(openai.NotFoundError) as refused:
            await platform.acme.fine_tuning.jobs.create(model=model, training_file=await _file(platform))
        assert refused.value.code == "model_not_found"


async def test_only_own_training_files_train(platform: Platform) -> None:
    theirs = await _file(platform, client=platform.rival)
    other = await platform.acme.files.create(file=("notes.txt", b"notes"), purpose="user_data")
    for file in (theirs, other.id):
        with pytest.raises(openai.BadRequestError) as refused:
            await platform.acme.fine_tuning.jobs.create(model="small-model", training_file=file)
        assert refused.value.param == "training_file"


async def test_a_cancelled_job_says_so_at_once_and_stays_so(platform: Platform) -> None:
    job = await platform.acme.fine_tuning.jobs.create(model="small-model", training_file=await _file(platform))
    cancelled = await platform.acme.fine_tuning.jobs.cancel(job.id)
    assert cancelled.status == "cancelled"
    assert cancelled.finished_at is not None
    assert await platform.acme.fine_tuning.jobs.cancel(job.id) == cancelled
    assert await platform.acme.fine_tuning.jobs.retrieve(job.id) == cancelled


async def test_another_organizations_job_is_as_if_it_were_not_there(platform: Platform) -> None:
    job = await platform.acme.fine_tuning.jobs.create(model="small-model", training_file=await _file(platform))
    jobs = platform.rival.fine_tuning.jobs
    for call in (jobs.retrieve, jobs.cancel, jobs.list_events, jobs.checkpoints.list):
        with pytest.raises(openai.NotFoundError):
            await call(job.id)
    assert (await jobs.list()).data == []
    assert (await platform.acme.fine_tuning.jobs.retrieve(job.id)).status == "validating_files"


async def test_events_come_newest_first_and_in_pages(platform: Platform) -> None:
    job = await platform.acme.fine_tuning.jobs.create(model="small-model", training_file=await _file(platform))
    await platform.acme.fine_tuning.jobs.cancel(job.id)
    page = await platform.acme.fine_tuning.jobs.list_events(job.id, limit=1)
    assert page.has_more
    events = [event async for event in page]
    assert [event.message.split(":")[0] for event in events] == [
        "The fine-tuning job was cancelled",
        "Validating training file",
        "Created fine-tuning job",
    ]
    assert {(event.object, event.level, event.type) for event in events} == {
        ("fine_tuning.job.event", "info", "message")
    }
    assert (await platform.acme.fine_tuning.jobs.checkpoints.list(job.id)).data == []


async def test_jobs_are_listed_by_metadata_and_cursor(platform: Platform) -> None:
    file = await _file(platform)
    made = [
        await platform.acme.fine_tuning.jobs.create(model="small-model", training_file=file, metadata=metadata)
        for metadata in ({"team": "blue"}, {"team": "red"}, None)
    ]
    ids = [job.id for job in made]
    listed = await platform.acme.fine_tuning.jobs.list(limit=1)
    assert [job.id async for job in listed] == ids[::-1]
    assert [job.id async for job in await platform.acme.fine_tuning.jobs.list(metadata={"team": "red"})] == [ids[1]]
    async with httpx.AsyncClient(headers={"authorization": "Bearer ty-acme"}) as client:
        found = (await client.get(f"{platform.url}/v1/fine_tuning/jobs?metadata=null")).json()
    assert [job["id"] for job in found["data"]] == [ids[2]]
    assert set(found) == {"object", "data", "has_more"}


async def test_too_many_unfinished_jobs_are_refused_for_now(platform: Platform) -> None:
    file = await _file(platform)
    for _ in range(3):
        await platform.acme.fine_tuning.jobs.create(model="small-model", training_file=file)
    with pytest.raises(openai.RateLimitError) as refused:
        await platform.acme.fine_tuning.jobs.create(model="small-model", training_file=file)
    assert refused.value.code == "rate_limit_exceeded"


async def test_a_file_in_use_is_not_deleted(platform: Platform) -> None:
    file = await _file(platform)
    await platform.acme.fine_tuning.jobs.create(model="small-model", training_file=file)
    with pytest.raises(openai.BadRequestError) as refused:
        await platform.acme.files.delete(file)
    assert refused.value.code == "file_in_use"


async def test_the_operator_sees_all_jobs_and_a_tenant_does_not(platform: Platform) -> None:
    for tenant in (platform.acme, platform.rival):
        file = await _file(platform, client=tenant)
        await tenant.fine_tuning.jobs.create(model="small-model", training_file=file)
    async with httpx.AsyncClient(headers={"authorization": "Bearer operator-secret"}) as client:
        everything = (await client.get(f"{platform.url}/admin/jobs")).json()
        acmes = (await client.get(f"{platform.url}/admin/jobs?organization=org_acme&status=validating_files")).json()
        none = (await client.get(f"{platform.url}/admin/jobs?status=cancelled")).json()
        one = (await client.get(f"{platform.url}/admin/jobs/{acmes['data'][0]['id']}")).json()
    assert {job["organization_id"] for job in everything["data"]} == {"org_acme", "org_rival"}
    assert [job["organization_id"] for job in acmes["data"]] == ["org_acme"]
    assert none["data"] == []
    assert one["reserved_amount"] > 0
    async with httpx.AsyncClient(headers={"authorization": "Bearer ty-acme"}) as client:
        assert (await client.get(f"{platform.url}/admin/jobs")).status_code == 403


@pytest.mark.parametrize(
    "filters",
    [
        {'metadata[a"b]': "v"},
        {"metadata[a\\b]": "v"},
        {"metadata[a\x01b]": "v"},
        {f"metadata[{'k' * 65}]": "v"},
        {f"metadata[k{number}]": "v" for number in range(1200)},
    ],
    ids=["quote", "backslash", "control", "long", "many"],
)
async def test_a_filter_that_cannot_be(platform: Platform, filters: dict[str, str]) -> None:
    async with httpx.AsyncClient(base_url=platform.url, headers={"authorization": "Bearer ty-acme"}) as http:
        refused = await http.get("/v1/fine_tuning/jobs", params=filters)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "metadata"


@pytest.mark.parametrize(
    "field", [{"metadata": {"a": "\x00"}}, {"metadata": {"\x00": "a"}}, {"training_file": "\x00"}], ids=str
)
async def test_a_nul_is_refused_with_its_field(platform: Platform, field: dict[str, Any]) -> None:
    asked = {"model": "small-model", "training_file": await _file(platform), **field}
    with pytest.raises(openai.BadRequestError) as refused:
        await platform.acme.fine_tuning.jobs.create(**asked)
    assert refused.value.param == next(iter(field))


async def test_half_a_surrogate_pair_is_refused_before_it_is_kept(platform: Platform) -> None:
    file = await _file(platform)
    body = json.dumps({"model": "small-model", "training_file": file, "metadata": {"\ud800": "a"}})
    headers = {"authorization": "Bearer ty-acme", "content-type": "application/json"}
    async with httpx.AsyncClient(base_url=platform.url, headers=headers) as http:
        refused = await http.post("/v1/fine_tuning/jobs", content=body)
    assert refused.status_code == 400
    assert platform.reservations.open == {}
    assert (await platform.acme.fine_tuning.jobs.list()).data == []
