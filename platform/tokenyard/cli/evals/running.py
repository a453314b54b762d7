"""Runs an eval as its tenant, by `/v1/evals`, and waits for what came of each row."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec

from tokenyard.cli.command import CommandFailed
from tokenyard.cli.credentials import Tenant

if TYPE_CHECKING:  # it takes half a second to load, which no other command needs
    from openai import AsyncOpenAI

POLL_S = 1.0
LIMIT_S = 6 * 3600.0  # which is as long as a run may take
_RETRIES = 5
_ITEMS = {"type": "custom", "item_schema": {"type": "object"}, "include_sample_schema": True}


@dataclass(frozen=True)
class AskedEval:
    """What is to be graded: the rows of a file as they are, or what `model` answers to `template`, filled from them."""

    rows: Path
    graders: Sequence[dict[str, Any]]
    model: str | None = None
    template: str | None = None
    max_tokens: int | None = None

    def data_source(self, file: str) -> dict[str, Any]:
        source = {"type": "file_id", "id": file}
        if self.model is None:
            return {"type": "jsonl", "source": source}
        sampling: dict[str, Any] = {"temperature": 0}
        if self.max_tokens is not None:
            sampling["max_completion_tokens"] = self.max_tokens
        messages = {"type": "template", "template": [{"role": "user", "content": self.template}]}
        asked = {"model": self.model, "input_messages": messages, "sampling_params": sampling}
        return {"type": "completions", "source": source, **asked}


class RowNotPassed(msgspec.Struct, frozen=True):
    """A row, by its place in the file from 0, that failed or could not be answered, and by which criteria."""

    row: int
    status: str
    answer: str
    failed: list[str]


class MeasuredEval(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a run. `criteria` has how many rows passed each one."""

    eval: str
    run: str
    model: str | None
    total: int
    passed: int
    failed: int
    errored: int
    criteria: dict[str, int]
    not_passed: list[RowNotPassed]

    @property
    def share(self) -> float:
        return self.passed / self.total if self.total else 0.0


async def run_eval(asked: AskedEval, tenant: Tenant, say: Callable[[str], None]) -> MeasuredEval:
    """Upload the rows, run an eval over them and wait for its end; interrupted, the run is cancelled.

    Raises:
        CommandFailed: the platform refuses the rows, the graders or the model, is away, or the run failed.
    """
    import openai  # noqa: PLC0415

    url = f"{tenant.connection.url}/v1"
    try:
        async with openai.AsyncOpenAI(base_url=url, api_key=tenant.key, max_retries=_RETRIES) as client:
            return await _measured(asked, client, say)
    except openai.APIError as error:
        where = f" ({error.param})" if error.param else ""
        raise CommandFailed(f"The eval could not be run: {error.message}{where}") from error


async def _measured(asked: AskedEval, client: "AsyncOpenAI", say: Callable[[str], None]) -> MeasuredEval:
    content = await asyncio.to_thread(asked.rows.read_bytes)
    file = await client.files.create(file=(asked.rows.name, content), purpose="evals")
    # Plain dictionaries, of which the SDK has a type for each shape.
    config, criteria, source = cast(Any, _ITEMS), cast(Any, asked.graders), cast(Any, asked.data_source(file.id))
    made = await client.evals.create(name=asked.rows.stem, data_source_config=config, testing_criteria=criteria)
    run: Any = await client.evals.runs.create(made.id, data_source=source)
    say(f"Run {run.id} of {made.id}: {asked.rows.name}" + (f" answered by {asked.model}" if asked.model else ""))
    try:
        async with asyncio.timeout(LIMIT_S):
            while run.status in ("queued", "in_progress"):
                await asyncio.sleep(POLL_S)
                run = await client.evals.runs.retrieve(run.id, eval_id=made.id)
    except asyncio.CancelledError:
        await client.evals.runs.cancel(run.id, eval_id=made.id)
        raise
    except TimeoutError:
        raise CommandFailed(f"The run {run.id} has not ended within {LIMIT_S / 3600:.0f} hours.") from None
    if run.status != "completed":
        why = run.error.message if run.error is not None else f"it was {run.status}"
        raise CommandFailed(f"The run {run.id} did not complete: {why}")
    counts = run.result_counts
    listed = client.evals.runs.output_items.list(run.id, eval_id=made.id)
    return MeasuredEval(
        eval=made.id,
        run=run.id,
        model=asked.model,
        total=counts.total,
        passed=counts.passed,
        failed=counts.failed,
        errored=counts.errored,
        criteria={each.testing_criteria: each.passed for each in run.per_testing_criteria_results},
        not_passed=[_row(item) async for item in listed if item.status != "pass"],
    )


def _row(item: Any) -> RowNotPassed:
    error = item.sample.error
    said = item.sample.output[0].content if item.sample.output else error.message if error is not None else ""
    failed = [result.name for result in item.results if not result.passed]
    return RowNotPassed(row=item.datasource_item_id, status=item.status, answer=said or "", failed=failed)
