"""How much a tenant can send, store and have under way."""

import json
from typing import Any

import openai
import pytest

from support.evals.stand import CONFIG, QUOTA_BYTES, EvalClients, completions, items, jsonl, rows
from tokenyard.evals.runs.store import MAX_UNFINISHED
from tokenyard.evals.work.reading import MAX_ROW_BYTES, MAX_ROWS


async def test_unfinished_runs_are_bounded(clients: EvalClients) -> None:
    made = await clients.eval()
    for _ in range(MAX_UNFINISHED):
        run = await clients.run(made, completions(items(1)))
    with pytest.raises(openai.RateLimitError):
        await clients.run(made, completions(items(1)))
    await clients.acme.evals.runs.cancel(run, eval_id=made)
    await clients.run(made, completions(items(1)))


async def test_what_is_stored_is_bounded(clients: EvalClients) -> None:
    config = {**CONFIG, "item_schema": {"type": "object", "description": "x" * 100_000}}
    for _ in range(QUOTA_BYTES // 100_100):
        made = await clients.eval(data_source_config=config)
    with pytest.raises(openai.RateLimitError) as full:
        await clients.eval(data_source_config=config)
    assert full.value.code == "storage_quota_exceeded"
    await clients.acme.evals.delete(made)
    made = await clients.eval()
    run = await clients.run(made, jsonl(rows(1)))
    await clients.acme.evals.runs.delete(run, eval_id=made)


async def test_notes_and_rows_of_files_are_stored_too(clients: EvalClients) -> None:
    large = {**CONFIG, "item_schema": {"type": "object", "description": "x" * 100_000}}
    notes = {f"k{number}": "x" * 512 for number in range(16)}
    made = await clients.eval()

    async def fill(**fields: Any) -> None:
        for _ in range(QUOTA_BYTES // 8_000):
            await clients.eval(**fields)

    for fields in ({"data_source_config": large}, {"metadata": notes}):
        with pytest.raises(openai.RateLimitError):
            await fill(**fields)
    with pytest.raises(openai.RateLimitError) as full:
        await clients.acme.evals.update(made, metadata=notes)
    assert full.value.code == "storage_quota_exceeded"
    assert (await clients.acme.evals.update(made, name="x")).name == "x"
    row = {"item": {"question": "x" * 10_000, "answer": "a"}, "sample": {"output_text": "a"}}
    file = await clients.upload(json.dumps(row).encode())
    run = await clients.run(made, {"type": "jsonl", "source": {"type": "file_id", "id": file.id}})
    await clients.stand.round()
    ended = await clients.acme.evals.runs.retrieve(run, eval_id=made)
    assert (ended.status, ended.error.code) == ("failed", "storage_quota_exceeded")
    assert (await clients.stand.stored())[2] == 0


async def test_rows_are_bounded(clients: EvalClients) -> None:
    made = await clients.eval()
    with pytest.raises(openai.BadRequestError) as many:
        await clients.run(made, jsonl(rows(MAX_ROWS + 1)))
    assert many.value.param == "data_source.source.content"
    large = {"item": {"question": "x" * MAX_ROW_BYTES, "answer": "a"}, "sample": {"output_text": "a"}}
    with pytest.raises(openai.BadRequestError) as long:
        await clients.run(made, jsonl([*rows(1), large]))
    assert long.value.param == "data_source.source.content.1"
    lines = b"".join(json.dumps(row).encode() + b"\n" for row in rows(MAX_ROWS + 1))
    file = await clients.upload(lines)
    run = await clients.run(made, {"type": "jsonl", "source": {"type": "file_id", "id": file.id}})
    await clients.stand.round()
    ended = await clients.acme.evals.runs.retrieve(run, eval_id=made)
    assert (ended.status, ended.error.message) == ("failed", f"There are more than {MAX_ROWS} rows.")
    other = await clients.upload(lines, purpose="user_data")
    with pytest.raises(openai.BadRequestError) as purpose:
        await clients.run(made, {"type": "jsonl", "source": {"type": "file_id", "id": other.id}})
    assert purpose.value.code == "invalid_file_purpose"
