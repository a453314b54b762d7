"""`/v1/fine_tuning/sweeps` over HTTP."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from support.finetune.fixtures import BOUND_KEY, CHEAP_KEY, Platform
from support.finetune.rows import rows
from tokenyard.finetune.tables import JobRow

SWEEPS = "/v1/fine_tuning/sweeps"


@pytest.fixture
async def http(platform: Platform) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=platform.url, headers={"authorization": "Bearer ty-acme"}) as client:
        yield client


async def body(platform: Platform, **changes: Any) -> dict[str, Any]:
    files = {}
    for field, count in (("training_file", 20), ("validation_file", 4)):
        made = await platform.acme.files.create(file=("teach.jsonl", rows(count)), purpose="fine-tune")
        files[field] = made.id
    return {"model": "small-model", **files, "sweep": {"learning_rate_multiplier": [1, 2.5]}, **changes}


async def created(http: httpx.AsyncClient, asked: dict[str, Any], key: str | None = None) -> dict[str, Any]:
    answer = await http.post(SWEEPS, json=asked, headers={} if key is None else {"Idempotency-Key": key})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def count(platform: Platform) -> int:
    async with platform.database.reading() as session:
        return await session.scalar(select(func.count()).select_from(JobRow)) or 0


async def test_a_sweep_is_created_found_and_cancelled(platform: Platform, http: httpx.AsyncClient) -> None:
    asked = await body(platform, metadata={"team": "blue"}, seed=7)
    made = await created(http, asked)
    assert made["id"].startswith("ftsweep-")
    assert (made["object"], made["status"], made["best_trial"]) == ("fine_tuning.sweep", "running", None)
    assert made["model"] == "small-model"
    assert {made[name] == asked[name] for name in ("training_file", "validation_file")} == {True}
    assert [trial["hyperparameters"] for trial in made["trials"]] == [
        {"n_epochs": 10, "batch_size": 2, "learning_rate_multiplier": multiplier} for multiplier in (1, 2.5)
    ]
    assert (await http.get(f"{SWEEPS}/{made['id']}")).json() == made
    listed = (await http.get(SWEEPS)).json()
    assert listed == {"object": "list", "data": [made], "has_more": False}
    for trial in made["trials"]:
        job = (await http.get(f"/v1/fine_tuning/jobs/{trial['id']}")).json()
        assert (job["sweep"], job["seed"], job["metadata"]) == (made["id"], 7, {"team": "blue"})
    cancelled = (await http.post(f"{SWEEPS}/{made['id']}/cancel")).json()
    assert (cancelled["status"], {trial["status"] for trial in cancelled["trials"]}) == ("cancelled", {"cancelled"})
    assert (await http.post(f"{SWEEPS}/{made['id']}/cancel")).json() == cancelled


async def test_sweeps_are_paged_newest_first(platform: Platform, http: httpx.AsyncClient) -> None:
    asked = await body(platform)
    made = []
    for _ in range(3):
        sweep = await created(http, asked)
        made.append(sweep["id"])
        await http.post(f"{SWEEPS}/{sweep['id']}/cancel")
        async with platform.database.transaction() as session:  # three unfinished ones are the limit
            for row in await session.scalars(select(JobRow).where(JobRow.sweep == sweep["id"])):
                row.state = "cancelled"
    found: list[str] = []
    while True:
        after = {"after": found[-1]} if found else {}
        page = (await http.get(SWEEPS, params={"limit": 2, **after})).json()
        found += [sweep["id"] for sweep in page["data"]]
        if not page["has_more"]:
            break
    assert sorted(found) == sorted(made)
    assert found[0] == made[-1]
    for params, wrong in (
        ({"after": "ftsweep-none"}, "after"),
        ({"limit": 21}, "limit"),
    ):
        refused = await http.get(SWEEPS, params=params)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, wrong)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"sweep": {}}, "sweep"),
    ({"sweep": {"n_epochs": [1]}}, "sweep"),
    ({"sweep": {"n_epochs": [1, 2, 3], "batch_size": [1, 2, 4]}}, "sweep"),
    ({"sweep": {"n_epochs": [2, 2]}}, "sweep.n_epochs"),
    ({"sweep": {"n_epochs": [1, 0]}}, "sweep.n_epochs.1"),
    ({"sweep": {"n_epochs": [1, "auto"]}}, "sweep.n_epochs.1"),
    ({"sweep": {"rank": [4, 8]}}, "sweep.rank"),
    ({"sweep": None}, "sweep"),
    ({"validation_file": None}, "validation_file"),
    ({"validation_file": "file-none"}, "validation_file"),
    ({"training_file": "file-none"}, "training_file"),
    ({"callable_checkpoints": 2}, "callable_checkpoints"),
    ({"hyperparameters": {"learning_rate_multiplier": 3}}, "hyperparameters.learning_rate_multiplier"),
    ({"suffix": "-"}, "suffix"),
    ({"colour": "blue"}, "colour"),
]


async def test_what_is_wrong_is_named_and_nothing_is_left_behind(platform: Platform, http: httpx.AsyncClient) -> None:
    asked = await body(platform)
    for changes, param in WRONG:
        for path in (SWEEPS, f"{SWEEPS}/estimate"):
            refused = await http.post(path, json=asked | changes)
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, param), changes
            assert refused.json()["error"]["type"] == "invalid_request_error"
    assert await count(platform) == 0


async def test_a_job_knows_no_sweep_of_its_own(platform: Platform, http: httpx.AsyncClient) -> None:
    refused = await http.post("/v1/fine_tuning/jobs", json=await body(platform))
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "sweep")


async def test_batches_that_come_to_the_same_are_refused(platform: Platform, http: httpx.AsyncClient) -> None:
    """No batch has more rows than there are."""
    learning = await body(platform, sweep={"batch_size": [20, 64]})
    for path in (SWEEPS, f"{SWEEPS}/estimate"):
        refused = await http.post(path, json=learning)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "sweep.batch_size")
    question = '{"messages": [{"role": "user", "content": "Which colour is the sky?"}], "answer": "Blue"}\n'
    made = await platform.acme.files.create(file=("ask.jsonl", question.encode() * 12), purpose="fine-tune")
    grader = {
        "type": "string_check",
        "name": "same",
        "operation": "eq",
        "input": "{{sample.output_text}}",
        "reference": "{{item.answer}}",
    }
    asked = await body(
        platform,
        training_file=made.id,
        validation_file=made.id,
        method={"type": "reinforcement", "reinforcement": {"grader": grader}},
        sweep={"batch_size": [12, 24]},
    )
    refused = await http.post(SWEEPS, json=asked)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "sweep.batch_size")
    assert len((await created(http, asked | {"sweep": {"batch_size": [6, 12]}}))["trials"]) == 2


async def test_the_estimate_is_what_creation_reserves(platform: Platform, http: httpx.AsyncClient) -> None:
    asked = await body(platform, sweep={"n_epochs": [1, 3]})
    known = (await http.post(f"{SWEEPS}/estimate", json=asked)).json()
    assert known["object"] == "fine_tuning.sweep.estimate"
    assert platform.reservations.open == {}
    made = await created(http, asked)
    assert known["max_cost_dollars"] == made["max_cost_dollars"]
    assert [one["max_cost_dollars"] for one in known["trials"]] == [one["max_cost_dollars"] for one in made["trials"]]
    tokens = [one["max_tokens"] for one in known["trials"]]
    assert known["max_tokens"] == sum(tokens)
    assert tokens[1] == 3 * tokens[0]
    assert float(known["max_cost_dollars"]) == pytest.approx(sum(platform.reservations.open.values()) / 1e9)
    cheap = (await http.post(f"{SWEEPS}/estimate", json=asked, headers={"authorization": f"Bearer {CHEAP_KEY}"})).json()
    assert float(cheap["max_cost_dollars"]) == pytest.approx(0.8 * float(known["max_cost_dollars"]))


async def test_sent_again_it_is_the_same_sweep_paid_for_once(platform: Platform, http: httpx.AsyncClient) -> None:
    asked = await body(platform)
    made = await created(http, asked, "once")
    assert await created(http, asked, "once") == made
    assert set(platform.reservations.open) == {trial["id"] for trial in made["trials"]}
    for path, other in (
        (SWEEPS, asked | {"sweep": {"n_epochs": [1, 2]}}),
        (SWEEPS, asked | {"suffix": "sky"}),
        ("/v1/fine_tuning/jobs", {name: value for name, value in asked.items() if name != "sweep"}),
    ):
        refused = await http.post(path, json=other, headers={"Idempotency-Key": "once"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "idempotency_key_reused")
    assert await count(platform) == 2


async def test_too_many_jobs_are_refused_together(platform: Platform, http: httpx.AsyncClient) -> None:
    asked = await body(platform)
    await created(http, asked)
    refused = await http.post(SWEEPS, json=asked)
    assert (refused.status_code, "these would be 2 more" in refused.json()["error"]["message"]) == (429, True)
    never = await http.post(SWEEPS, json=asked | {"sweep": {"n_epochs": [1, 2, 3, 4]}})
    assert (never.status_code, never.json()["error"]["code"]) == (400, "too_many_jobs")
    assert await count(platform) == 2


async def test_what_is_not_covered_leaves_nothing_behind(platform: Platform, http: httpx.AsyncClient) -> None:
    asked = await body(platform)
    made = await created(http, asked)
    needed = sum(platform.reservations.open.values())
    await http.post(f"{SWEEPS}/{made['id']}/cancel")
    async with platform.database.transaction() as session:
        for row in await session.scalars(select(JobRow)):
            row.state = "cancelled"
    platform.reservations.open.clear()
    platform.reservations.wallet = needed - 1
    refused = await http.post(SWEEPS, json=asked, headers={"Idempotency-Key": "once"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "insufficient_quota")
    assert (platform.reservations.open, await count(platform)) == ({}, 2)
    platform.reservations.wallet = needed
    again = await created(http, asked, "once")
    assert set(platform.reservations.open) == {trial["id"] for trial in again["trials"]}


async def test_another_tenants_sweep_is_as_one_that_does_not_exist(platform: Platform, http: httpx.AsyncClient) -> None:
    made = await created(http, await body(platform))
    rival = {"authorization": "Bearer ty-rival"}
    for method, path in (("GET", made["id"]), ("POST", f"{made['id']}/cancel")):
        theirs = await http.request(method, f"{SWEEPS}/{path}", headers=rival)
        nobodys = await http.request(method, f"{SWEEPS}/ftsweep-none", headers=rival) if method == "GET" else theirs
        assert (theirs.status_code, nobodys.status_code) == (404, 404)
        assert theirs.json()["error"]["param"] == "sweep_id"
    assert (await http.get(SWEEPS, headers=rival)).json()["data"] == []
    assert (await http.get(SWEEPS, headers=rival, params={"after": made["id"]})).status_code == 400
    assert (await http.get(f"{SWEEPS}/{made['id']}")).json()["status"] == "running"


async def test_a_model_that_the_key_may_not_use_is_not_tried(platform: Platform, http: httpx.AsyncClient) -> None:
    refused = await http.post(SWEEPS, json=await body(platform), headers={"authorization": f"Bearer {BOUND_KEY}"})
    assert (refused.status_code, await count(platform)) == (403, 0)
